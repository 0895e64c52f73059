"""Results of demo.sh: a report on one run, records of runs in results/, tables in README and docs.

    python tools/results.py report --name mini              metrics of a run
    python tools/results.py collect --name NAME             record a run that has ended
    python tools/results.py render                          the tables, from results/
    python tools/results.py check --name NAME --data DIR    fails if NAME is a run on other data

NAME is the run's folder in each stage's out/. `report` prints the metrics and the parts of the
pseudo masks.

`collect` writes results/<set>-demo-<seed>.json; an older record of the same seed is replaced:

    name, set, seed   the group of rows (demo; fusion and parts by tools/ablation.py; ...), the data
                      set (NAME, or `drawn`), the seed
    metrics           {row of the table: {metric: value in %}}
    lists             digests of the training and the validation list
    command, commit   what was run; a commit ends in -dirty if the code had been edited
    versions, processor, seconds (of training and testing), date

`render` replaces the text between `<!-- results: SET [NAME ...] -->` and `<!-- end -->` by a table
of the records of that set: of the demo, or of the groups named. Several sets, joined by commas, are
one table. Cells are mean ± sample standard deviation over the seeds.
"""

import argparse
import hashlib
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from utils.arguments import ROOT, Parser
from utils.errors import InputError, run
from utils.files import read_json, write_json, write_text
from utils.lists import list_path
from utils.results import commit as git_commit
from utils.results import training_settings

RESULTS = ROOT / 'results'
STAGES = ('cls', 'cam', 'seg')
MINI = ROOT / 'dataset' / 'mini'  # the demo's own birds
# Metrics of a record that are columns of a table, in their order, with their headings.
COLUMNS = {'GT-known': 'GT-known at 0.2', 'auto threshold': 'GT-known at t',
           'best threshold': 'GT-known, best threshold', 'MaxBoxAcc': 'MaxBoxAcc',
           'MaxBoxAccV2': 'MaxBoxAccV2', 'PxAP': 'PxAP', 'Top-1 localization': 'Top-1',
           'Top-5 localization': 'Top-5'}
TITLES = {'fusion': 'fused stages (box of the CAM)', 'parts': 'parts of SPOL'}
UNTRAINED = ('whole image', 'best centred box')  # rows without a standard deviation
TABLE = re.compile(r'(<!-- results: (\S+)((?: \S+)*) -->\n).*?(<!-- end -->)', re.DOTALL)
MASKS_LOOKED_AT = 500


def main():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('action', choices=['report', 'collect', 'render', 'check'], help='what to do')
    add('--name', default='mini', help="the run's folder in each stage's out/")
    add('--dataset', choices=['cub200', 'imagenet'], default='cub200',
        help='report, check: whose stages have run')
    add('--data', type=Path, default=MINI, help='check: the data folder of demo.sh')
    add('--train', default='train.txt', help='check: the training list of demo.sh')
    add('--val', default='val.txt', help='check: the list that demo.sh tests on')
    args = parser.parse_args()
    if args.action == 'report':
        report(args.dataset, args.name)
    elif args.action == 'collect':
        print(f'wrote {collect(args.name)}')
    elif args.action == 'check':
        check(args)
    else:
        for path in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')):
            write_text(path, rendered(path.read_text()))


def digests(data: Path, train: str, val: str) -> dict[str, str]:
    """What tells lists of equal names apart."""
    return {split: hashlib.sha256(list_path(data, name).read_bytes()).hexdigest()[:16]
            for split, name in (('train', train), ('val', val))}


def results_of(dataset: str, name: str, root: Path) -> list[dict]:
    """The results.json of each of STAGES; empty where there is none."""
    return [read_json(root / f'{dataset}-{stage}' / 'out' / name / 'results.json')
            for stage in STAGES]


def check(args: argparse.Namespace, root: Path = ROOT) -> None:
    """Raise InputError if the run args.name is of other data than args.data, or of other lists."""
    for stage, results in zip(STAGES, results_of(args.dataset, args.name, root), strict=True):
        tested = results.get('evaluation', {}) if stage == 'cam' else results
        for given, section in ((args.train, results.get('training', {})), (args.val, tested)):
            if arguments := section.get('arguments'):
                data = Path(arguments['datapath'])
                found, wanted = list_path(data, arguments['list']), list_path(args.data, given)
                if (data.resolve(), found.resolve()) != (args.data.resolve(), wanted.resolve()):
                    raise InputError(f'{args.dataset}-{stage}/out/{args.name} has the results of '
                                     f'{found}, which this run would overwrite: give --name NAME, '
                                     'another folder')


def collect(name: str, root: Path = ROOT, folder: Path = RESULTS) -> Path:
    """Record a run of demo.sh. Raises InputError if it is incomplete."""
    cls, cam, seg = complete_results('cub200', name, root)
    trained, seed = seg['training']['arguments'], seg['training']['arguments']['seed']
    data, lists = Path(trained['datapath']), {'train': trained['list'],
                                              'val': seg['arguments']['list']}
    drawn = data.resolve() == MINI.resolve()
    flags = '' if drawn else f' --data {data.name}'
    for flag, given in lists.items():
        if Path(given).name != f'{flag}.txt':
            flags += f' --{flag} {Path(given).name}'
    seconds = sum(stage['seconds'] + stage['training']['seconds'] for stage in (cls, cam, seg))
    return write_record(
        'demo', 'drawn' if drawn else name, seed, metrics_of_run(cls, cam, seg),
        lists=None if drawn else digests(data, **lists), commit=commit(), versions=seg['versions'],
        command=f'bash demo.sh{flags} --name {name} --seed {seed}',
        seconds=seconds + cam.get('evaluation', {}).get('seconds', 0), folder=folder)


def complete_results(dataset: str, name: str, root: Path) -> list[dict]:
    """As `results_of`. Raises InputError unless all stages have been tested."""
    cls, cam, seg = results_of(dataset, name, root)
    tested = all('arguments' in results for results in (cls, cam, seg))
    swept = 'sweep' in seg and 'sweep' in cam.get('evaluation', {}).get('fused', {})
    if not tested or ('strict' in seg and not swept):
        raise InputError(f'{root}/{dataset}-*/out/{name} has no complete run: run demo.sh, or each '
                         "stage's test.py (cam also with --evaluate --sweep, seg with --sweep)")
    return [cls, cam, seg]


def metrics_of_run(cls: dict, cam: dict, seg: dict) -> dict[str, dict[str, float]]:
    """{row of the table: its metrics}; for a list without boxes, those of the classifier alone.

    SPOL's GT-known, Top-1 and Top-5 are at the paper's threshold; `auto threshold` is GT-known at
    `threshold`, where that was chosen without boxes.
    """
    rows = {}
    if 'strict' in seg:
        for kind, title in (('deep', 'plain CAM'), ('fused', 'fused CAM')):
            if kind in cam['evaluation']:
                rows[title] = metrics_of(cam['evaluation'][kind])
        rows['SPOL'] = metrics_of({**seg, **seg.get('paper_threshold', {})})
        used = seg['arguments']['threshold']
        recorded = training_settings(seg['arguments']['snapshot'])
        if 'threshold_rule' in recorded and recorded.get('threshold') == used:
            rows['SPOL'] |= {'auto threshold': metrics_of(seg)['GT-known'], 'threshold': used}
    return {**rows, 'classifier': {'Top-1': round(100 * cls['top1'], 2)}}


def metrics_of(evaluation: dict) -> dict[str, float]:
    """The metrics, in percent, of what an evaluation with --sweep has written to results.json."""
    strict = evaluation['strict']
    values = {'GT-known': strict['gt_known'],
              'best threshold': evaluation['sweep']['best']['strict']['gt_known'],
              'MaxBoxAcc': evaluation['max_box_acc'], 'MaxBoxAccV2': evaluation['max_box_acc_v2'],
              'PxAP': evaluation['pxap'], 'Top-1 localization': strict.get('top1'),
              'Top-5 localization': strict.get('top5')}
    return {name: round(100 * value, 2) for name, value in values.items() if value is not None}


def commit() -> str:
    """The short commit of the code, with -dirty if tracked code differs; empty without git."""
    head = (git_commit() or '')[:7]
    command = ['git', 'diff', '--quiet', 'HEAD', '--', '.', ':!results', ':!docs', ':!*.md']
    edited = head and subprocess.run(command, cwd=ROOT, check=False).returncode
    return f'{head}-dirty' if edited else head


def processor() -> str:
    """The GPU's name, or the CPU's with its vector instructions, which decide the kernels."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = re.search(r'^model name\s*: (.*)$', Path('/proc/cpuinfo').read_text(), re.MULTILINE)
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return f'{name[1] if name else platform.machine()} {capability}'


def write_record(name: str, data_set: str, seed: int, metrics: dict[str, dict[str, float]],
                 *, seconds: float, folder: Path = RESULTS, **others: Any) -> Path:
    """Write a record; an older one of the same name, set and seed is replaced."""
    path = folder / f'{data_set}-{name}-{seed}.json'
    write_json(path, {'name': name, 'set': data_set, 'seed': seed, 'metrics': metrics, **others,
                      'processor': processor(), 'seconds': round(seconds),
                      'date': date.today().isoformat()})
    return path


def read_records(data_set: str, names: Iterable[str], folder: Path = RESULTS
                 ) -> dict[str, list[dict]]:
    """{name: its records over the seeds}. Raises InputError for a name without records."""
    found = {}
    for name in names:
        records = [read_json(path) for path in folder.glob(f'{data_set}-{name}-[0-9]*.json')]
        if not records:
            raise InputError(f'{folder} has no record of {name} on {data_set}: run it first')
        found[name] = sorted(records, key=lambda record: record['seed'])
    return found


def rendered(text: str, folder: Path = RESULTS) -> str:
    """The text with its tables made from the records in `folder`. Raises InputError."""
    def content(match: re.Match) -> str:
        sets, names = match[2].split(','), match[3].split() or ['demo']
        groups = [records for data_set in sets
                  for records in read_records(data_set, names, folder).values()]
        return f'{match[1]}{table(groups)}\n{match[4]}'

    return TABLE.sub(content, text)


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation (0 of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summarize(records: list[dict]) -> dict[str, dict[str, tuple[float, float]]]:
    """{row: {metric: (mean, standard deviation)}} of one group's records, over the seeds: the
    metrics that all of them have."""
    every = [record['metrics'] for record in records]
    return {row: {metric: mean_and_std([metrics[row][metric] for metrics in every])
                  for metric in found if all(metric in metrics.get(row, {}) for metrics in every)}
            for row, found in every[0].items()}


def table(groups: list[list[dict]]) -> str:
    """Groups of records as a Markdown table, and a line that says where they come from. The rows of
    several data sets are called by their set as well."""
    rows, notes, every = {}, [], [record for records in groups for record in records]
    several_sets = len({record['set'] for record in every}) > 1
    for records in groups:
        of_set = f' ({records[0]["set"]})' if several_sets else ''
        for name, metrics in summarize(records).items():
            several = len(records) > 1 and name not in UNTRAINED
            cells = {metric: f'{mean:.1f} ± {deviation:.1f}' if several else f'{mean:.1f}'
                     for metric, (mean, deviation) in metrics.items()}
            if cells.keys() & COLUMNS:
                rows[name + of_set] = cells
            if 'Top-1' in cells:
                notes.append(f'Top-1 of the {name}{of_set} {cells["Top-1"]} %')
            if 'threshold' in cells:
                chosen = distinct(record['metrics'][name]['threshold'] for record in records)
                notes.append(f't{of_set} = {chosen}, chosen on training images without boxes')
    seeds = distinct(record['seed'] for record in every)
    source = [f'seed{"s" if "," in seeds else ""} {seeds}', *notes,
              distinct(f'PyTorch {record["versions"]["torch"]}' for record in every),
              distinct(record['processor'] for record in every),
              'commit ' + distinct(record['commit'] for record in every)]
    title = TITLES.get(groups[0][0]['name'], '')
    return f'{markdown(title, COLUMNS, rows)}\n\n<sub>{"; ".join(source)}</sub>'


def markdown(title: str, columns: dict, rows: dict[str, dict]) -> str:
    """A Markdown table of those columns, {key: heading}, that any row has."""
    used = [key for key in columns if any(key in row for row in rows.values())]
    lines = [[title, *(columns[key] for key in used)], ['---'] * (1 + len(used))]
    lines += [[name, *(str(row.get(key, '')) for key in used)] for name, row in rows.items()]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def distinct(values: Iterable[Any]) -> str:
    return ', '.join(dict.fromkeys(map(str, values)))


def report(dataset: str, name: str, root: Path = ROOT) -> None:
    """Print a run's metrics, and the parts of its pseudo masks."""
    cls, cam, seg = complete_results(dataset, name, root)
    columns = {**COLUMNS, 'threshold': 't', 'Top-1': 'Top-1 of the classes'}
    print(f'{seg["arguments"]["list"]}, {seg["count"]} images, %\n')
    print(markdown('', columns, metrics_of_run(cls, cam, seg)))
    print(f'\n{mask_parts(Path(cam["arguments"]["maskpath"]))}')
    print(f'pictures: {dataset}-cam/out/{name}/show.png {dataset}-seg/out/{name}/show.png')


def mask_parts(folder: Path) -> str:
    """The parts of the pixels of the pseudo masks in a folder."""
    from utils.images import read_stored_mask
    from utils.pseudo_mask import seg_target

    paths = sorted(folder.rglob('*.png'))
    paths = paths[::len(paths) // MASKS_LOOKED_AT + 1]
    parts = [[part.mean() for part in seg_target(read_stored_mask(path))] for path in paths]
    foreground, valid = 100 * np.reshape(parts, (-1, 2)).mean(0)
    return (f'pseudo masks of {len(paths)} images: foreground {foreground:.0f} %, background '
            f'{valid - foreground:.0f} %, ignored {100 - valid:.0f} % of the pixels')


if __name__ == '__main__':
    run(main)
