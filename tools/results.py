"""Results of demo.sh: a report on one run, records of runs in results/, tables in README and docs.

    python tools/results.py report --name mini              metrics and contact sheet of a run
    python tools/results.py run --data DIR --seeds 0 1 2    demo.sh --data DIR for each seed
    python tools/results.py run                             demo.sh on its drawn birds
    python tools/results.py collect --name NAME             record a run of demo.sh that has ended
    python tools/results.py render                          the tables, from results/
    python tools/results.py check --name NAME --data DIR    fails if NAME is a run on other data

NAME is the run's folder in each stage's out/. `report` reads the results.json of all stages, prints
the metrics and the parts of the pseudo masks, and draws report.png. A list without boxes has no
localization metrics.

`run` and `collect` write results/<set>-demo-<seed>.json:

    name, set, seed   the group of rows (demo; fusion and parts by tools/ablation.py; ...), the data
                      set (NAME, or `drawn`), the seed
    metrics           {row of the table: {metric: value in %}}
    lists             digests of the training and the validation list
    command, commit   what was run; a commit ends in -dirty if the code had been edited
    versions, processor, seconds (of training and testing), date

`run` leaves out seeds that are recorded: after an interruption the same command continues.

`render` replaces the text between `<!-- results: SET [NAME ...] -->` and `<!-- end -->` by a table
of the records of that set: of the demo, or of the groups named. Several sets, joined by commas, are
one table. Cells are mean ± sample standard deviation over the seeds.
"""

import argparse
import hashlib
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import numpy as np

from utils.arguments import ROOT, Parser, nonnegative_int
from utils.errors import InputError, run
from utils.files import read_json, write_json, write_text
from utils.lists import list_path
from utils.results import commit as git_commit
from utils.results import training_settings

RESULTS = ROOT / 'results'
STAGES = ('cls', 'cam', 'seg')
# Metrics of a record that are columns of a table, in their order, with their headings.
COLUMNS = {'GT-known': 'GT-known at 0.2', 'auto threshold': 'GT-known at t',
           'best threshold': 'GT-known, best threshold', 'MaxBoxAcc': 'MaxBoxAcc',
           'MaxBoxAccV2': 'MaxBoxAccV2', 'PxAP': 'PxAP', 'Top-1 localization': 'Top-1',
           'Top-5 localization': 'Top-5'}
TITLES = {'fusion': 'fused stages (box of the CAM)', 'parts': 'parts of SPOL'}
UNTRAINED = ('whole image', 'best centred box')  # rows without a standard deviation
TABLE = re.compile(r'(<!-- results: (\S+)((?: \S+)*) -->\n).*?(<!-- end -->)', re.DOTALL)
CPU_FLAGS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16')  # decide which kernels are used
MASKS_LOOKED_AT, MIN_BACKGROUND = 500, 0.02
Rows = dict[str, dict[str, tuple[float, float]]]  # {row: {metric: (mean, standard deviation)}}


def main():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('action', choices=['report', 'run', 'collect', 'render', 'check'], help='what to do')
    add('--name', help="the run's folder in each stage's out/ (default: as in demo.sh)")
    add('--data', type=Path, help='run, check: a data folder in the CUB layout')
    add('--train', default='train.txt', help='run, check: the training list, as in demo.sh')
    add('--val', default='val.txt', help='run, check: the list to test on')
    add('--seeds', type=nonnegative_int, nargs='+', default=[0, 1, 2], help='run: the seeds')
    add('--dataset', choices=['cub200', 'imagenet'], default='cub200',
        help='report, check: whose stages have run')
    args = parser.parse_args()
    if args.action == 'check' and not args.data:
        parser.error('check needs --data')
    name = args.name or default_name(args.data, args.train)
    if args.action == 'report':
        report(args.dataset, name)
    elif args.action == 'run':
        run_seeds(args, name)
    elif args.action == 'collect':
        print(f'wrote {collect(name, commit())}')
    elif args.action == 'check':
        check(args, name)
    else:
        render([ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))])


# ---------------------------------------------------------------- runs of demo.sh


def default_name(data: str | Path | None, train: str) -> str:
    """A run's name, as in demo.sh: that of the data folder; with another training list than
    train.txt, the list's as well."""
    if not data:
        return 'mini'
    stem = Path(train).name.removesuffix('.txt')
    return Path(data).resolve().name + ('' if stem == 'train' else f'-{stem}')


def flags_of(data: str | Path | None, train: str, val: str) -> str:
    """The flags of demo.sh and tools/ablation.py for data, without the folder's place."""
    if not data:
        return ''
    lists = ''.join(f' --{split} {Path(name).name}' for split, name in (
        ('train', train), ('val', val)) if Path(name).name != f'{split}.txt')
    return f' --data {Path(data).name}{lists}'


def results_of(dataset: str, name: str, root: Path = ROOT) -> list[dict]:
    """The results.json of each of STAGES."""
    return [read_json(root / f'{dataset}-{stage}' / 'out' / name / 'results.json')
            for stage in STAGES]


def check(args: argparse.Namespace, name: str, root: Path = ROOT) -> None:
    """Raise InputError if a run of that name is of another data folder, or of other lists."""
    data = args.data.resolve()
    given = {'train': (data, list_path(data, args.train).resolve()),
             'val': (data, list_path(data, args.val).resolve())}
    for stage, results in zip(STAGES, results_of(args.dataset, name, root), strict=True):
        tested = results.get('evaluation', {}) if stage == 'cam' else results
        for split, section in (('train', results.get('training', {})), ('val', tested)):
            arguments = section.get('arguments') if isinstance(section, dict) else None
            if not arguments:
                continue
            folder = Path(arguments['datapath'])
            found = folder.resolve(), list_path(folder, arguments['list']).resolve()
            if found != given[split]:
                raise InputError(f'{args.dataset}-{stage}/out/{name} has the results of {found[1]} '
                                 f'(data: {found[0]}), which this run would overwrite: give '
                                 '--name NAME, another folder')


def run_seeds(args: argparse.Namespace, name: str) -> None:
    """Run demo.sh for each seed that is not recorded, and record it."""
    flags, lists = ['--name', name], None
    if args.data:
        flags += ['--data', args.data, '--train', args.train, '--val', args.val]
        lists = digests(args.data, args.train, args.val)
    for seed in args.seeds:
        path = RESULTS / f'{set_name(name, args.data)}-demo-{seed}.json'
        recorded = read_json(path).get('lists')
        if path.exists() and recorded == lists:
            continue
        if recorded and recorded != lists:
            raise InputError(f'{path} is a record of other lists, or of other data of that name: '
                             'give --name NAME, another name for this set')
        begun = commit()
        command = ['bash', ROOT / 'demo.sh', '--seed', seed, *flags]
        if code := subprocess.run([str(word) for word in command], check=False).returncode:
            raise InputError(f'demo.sh ended with exit code {code}: see above')
        print(f'wrote {collect(name, begun)}')


def set_name(name: str, data: Path | None) -> str:
    return 'drawn' if name == 'mini' and not data else name


def digests(data: Path, train: str, val: str) -> dict[str, str]:
    """What tells lists of equal names apart."""
    paths = {'train': list_path(data, train), 'val': list_path(data, val)}
    return {split: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            for split, path in paths.items()}


def collect(name: str, code: str, root: Path = ROOT, folder: Path = RESULTS) -> Path:
    """Record a run of demo.sh; `code`: its commit. Raises InputError if it is incomplete."""
    cls, cam, seg = results_of('cub200', name, root)
    if 'top1' not in cls or 'evaluation' not in cam or 'sweep' not in seg:
        raise InputError(f'{root}/cub200-*/out/{name} has no complete run on a list with boxes: '
                         'run demo.sh')
    trained, val = seg['training']['arguments'], seg['arguments']['list']
    data, train, seed = Path(trained['datapath']), trained['list'], trained['seed']
    where = None if data.resolve() == (root / 'dataset' / 'mini').resolve() else data
    named = '' if name == default_name(where, train) else f' --name {name}'
    metrics = {'plain CAM': metrics_of(cam['evaluation']['deep']),
               'fused CAM': metrics_of(cam['evaluation']['fused']),
               'SPOL': spol_metrics(seg),
               'classifier': {'Top-1': round(100 * cls['top1'], 2)}}
    return write_record(
        'demo', set_name(name, where), seed, metrics, lists=where and digests(data, train, val),
        command=f'bash demo.sh{flags_of(where, train, val)}{named} --seed {seed}', commit=code,
        versions=seg['versions'], folder=folder,
        seconds=sum(seconds_of(results) for results in (cls, cam, seg)))


def seconds_of(results: dict) -> float:
    """The seconds of all sections of a results.json."""
    return results['seconds'] + sum(section['seconds'] for section in results.values()
                                    if isinstance(section, dict) and 'seconds' in section)


# ---------------------------------------------------------------- records


def percent(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: round(100 * value, 2) for name, value in values.items() if value is not None}


def metrics_of(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of what an evaluation with --sweep has written to results.json."""
    return percent({'GT-known': evaluation['strict']['gt_known'],
                    'best threshold': evaluation['sweep']['best']['strict']['gt_known'],
                    'MaxBoxAcc': evaluation['max_box_acc'],
                    'MaxBoxAccV2': evaluation['max_box_acc_v2'], 'PxAP': evaluation['pxap']})


def spol_metrics(seg: Mapping[str, Any]) -> dict[str, float]:
    """Those of seg/test; GT-known, Top-1 and Top-5 are at the paper's threshold, `auto threshold`
    is GT-known at the one that was chosen without boxes, `threshold`."""
    strict = seg.get('paper_threshold', seg)['strict']
    metrics = metrics_of(seg) | percent({
        'GT-known': strict['gt_known'], 'Top-1 localization': strict.get('top1'),
        'Top-5 localization': strict.get('top5')})
    if is_chosen(seg):
        metrics |= percent({'auto threshold': seg['strict']['gt_known']})
        metrics['threshold'] = seg['arguments']['threshold']
    return metrics


def is_chosen(seg: Mapping[str, Any]) -> bool:
    """Whether seg/test's threshold was chosen without boxes."""
    recorded, used = training_settings(seg['arguments']['snapshot']), seg['arguments']['threshold']
    return 'threshold_rule' in recorded and recorded.get('threshold') == used


def commit() -> str:
    """The short commit of the code, with -dirty if tracked code differs; empty without git."""
    if not (head := git_commit()):
        return ''
    command = ['git', 'diff', '--quiet', 'HEAD', '--', '.', ':!results', ':!docs', ':!*.md']
    edited = subprocess.run(command, cwd=ROOT, check=False).returncode
    return head[:7] + ('-dirty' if edited else '')


def processor() -> str:
    """The GPU's name, or the CPU's with those of CPU_FLAGS that it has."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    path = Path('/proc/cpuinfo')
    text = path.read_text() if path.exists() else ''
    name = re.search(r'^model name\s*: (.*)$', text, re.MULTILINE)
    words = set(text.split())
    return ' '.join([name[1] if name else 'unknown', *(f for f in CPU_FLAGS if f in words)])


def write_record(name: str, data_set: str, seed: int, metrics: Mapping[str, Mapping[str, float]],
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
    records = sorted((json.loads(path.read_text()) for path in folder.glob('*.json')),
                     key=lambda record: record['seed'])
    found = {name: [record for record in records
                    if (record['set'], record['name']) == (data_set, name)] for name in names}
    for name, several in found.items():
        if not several:
            raise InputError(f'{folder} has no record of {name} on {data_set}: run it first')
    return found


# ---------------------------------------------------------------- tables of records


def render(paths: list[Path]) -> None:
    for path in paths:
        old = path.read_text()
        if (new := rendered(old)) != old:
            write_text(path, new)
            print(f'wrote {path}')


def rendered(text: str, folder: Path = RESULTS) -> str:
    """The text with its tables made from the records in `folder`. Raises InputError."""
    def content(match: re.Match) -> str:
        sets, names = match[2].split(','), match[3].split() or ['demo']
        groups = []
        for data_set in sets:
            groups += read_records(data_set, names, folder).values()
        return f'{match[1]}{table(groups, named_sets=len(sets) > 1)}\n{match[4]}'

    return TABLE.sub(content, text)


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation (0 of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summarize(records: list[dict]) -> Rows:
    """The rows of one group's records, over the seeds: the metrics that all of them have."""
    every = [record['metrics'] for record in records]
    return {row: {metric: mean_and_std([metrics[row][metric] for metrics in every])
                  for metric in found if all(metric in metrics[row] for metrics in every)}
            for row, found in every[0].items() if all(row in metrics for metrics in every)}


def table(groups: list[list[dict]], named_sets: bool = False) -> str:
    """Groups of records as a Markdown table, and a line that says where they come from;
    `named_sets`: with the data set in the names of rows."""
    rows, notes = [], []
    for records in groups:
        of_set = f' ({records[0]["set"]})' if named_sets else ''
        for name, metrics in summarize(records).items():
            count = 1 if name in UNTRAINED else len(records)
            cells = [cell(metrics.get(column), count) for column in COLUMNS]
            rows += [[name + of_set, *cells]] if any(cells) else []
            if 'Top-1' in metrics:
                notes.append(f'Top-1 of the {name}{of_set} {cell(metrics["Top-1"], count)} %')
            if 'threshold' in metrics:
                chosen = distinct(record['metrics'][name]['threshold'] for record in records)
                notes.append(f't{of_set} = {chosen}, chosen on training images without boxes')
    title = TITLES.get(groups[0][0]['name'], '')
    return '\n'.join([markdown([title, *COLUMNS.values()], rows), '', source_line(groups, notes)])


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, without the columns that are empty in all rows."""
    kept = [number for number in range(len(headings))
            if number == 0 or any(row[number] for row in rows)]
    lines = [[headings[number] for number in kept], ['---'] * len(kept),
             *([row[number] for number in kept] for row in rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def cell(value: tuple[float, float] | None, count: int) -> str:
    if value is None:
        return ''
    return f'{value[0]:.1f} ± {value[1]:.1f}' if count > 1 else f'{value[0]:.1f}'


def distinct(values: Iterable[Any]) -> str:
    return ', '.join(dict.fromkeys(map(str, values)))


def source_line(groups: list[list[dict]], notes: list[str]) -> str:
    """Seeds, notes, processors, versions and commits of the records."""
    records = [record for several in groups for record in several]
    seeds = distinct(record['seed'] for record in records)
    parts = [f'seed{"s" if "," in seeds else ""} {seeds}', *notes,
             distinct(f'PyTorch {record["versions"]["torch"]}' for record in records),
             distinct(record['processor'] for record in records),
             'commit ' + distinct(record['commit'] for record in records)]
    return f'<sub>{"; ".join(parts)}</sub>'


# ---------------------------------------------------------------- the report on one run


def report(dataset: str, name: str, root: Path = ROOT) -> None:
    """Print a run's metrics and the quality of its pseudo masks, and join its contact sheets."""
    cls, cam, seg = results_of(dataset, name, root)
    has_boxes = 'strict' in seg
    if ('top1' not in cls or 'maskpath' not in cam.get('arguments', {}) or 'count' not in seg
            or (has_boxes and not ('evaluation' in cam and 'sweep' in seg))):
        raise InputError(f'{root}/{dataset}-*/out/{name} has no complete run: run demo.sh, or each '
                         "stage's test.py (cam also with --evaluate --sweep, seg with --sweep)")
    print(f'classification: top-1 {100 * cls["top1"]:.1f} %, top-5 {100 * cls["top5"]:.1f} %, '
          f'{cls["count"]} images\n')
    print(localization(cam['evaluation'], seg) if has_boxes else
          f'{seg["arguments"]["list"]} has no boxes: no localization metrics')
    print(f'\n{mask_quality(dataset, cam["arguments"])}\n')
    sheets = [root / f'{dataset}-{stage}' / 'out' / name / 'show.png' for stage in ('cam', 'seg')]
    print(f'picture: {join_sheets(*sheets) if has_boxes else sheets[1]}')


def localization(cams: dict, seg: dict) -> str:
    """The metrics, in percent, as a Markdown table."""
    at, used = cams['arguments']['threshold'], f'SPOL, at {seg["arguments"]["threshold"]}'
    lines = [(f'plain CAM, at {at}', cams.get('deep')), (f'fused CAM, at {at}', cams['fused'])]
    if paper := seg.get('paper_threshold'):
        lines.append((f'SPOL, at {paper["threshold"]}', {**seg, **paper}))
    lines.append((f'{used}, chosen without boxes' if is_chosen(seg) else used, seg))
    rows = []
    for title, found in lines:
        if found:
            values = [found['strict'].get('top1'), found['strict'].get('top5'),
                      found['strict']['gt_known'], found['sweep']['best']['strict']['gt_known'],
                      found['max_box_acc'], found['max_box_acc_v2'], found['pxap']]
            cells = ['' if value is None else f'{100 * value:.1f}' for value in values]
            cells[3] += f' (at {found["sweep"]["best_threshold"]:.2f})'
            rows.append([title, *cells])
    return markdown(['strict count, %', 'Top-1', 'Top-5', 'GT-known', 'best threshold',
                     'MaxBoxAcc', 'MaxBoxAccV2', 'PxAP'], rows)


def mask_quality(dataset: str, arguments: dict) -> str:
    """The parts of the pixels of pseudo masks, and where the data have ground-truth masks, how the
    two compare; `arguments`: those of cam/test."""
    from utils.images import read_stored_mask, read_true_mask
    from utils.lists import cub_images, imagenet_images
    from utils.pseudo_mask import seg_target

    read = cub_images if dataset == 'cub200' else imagenet_images
    images = read(Path(arguments['datapath']), arguments['list'], arguments['clsnum'])
    parts, hits, bare, count = np.zeros(2), np.zeros(5), 0, 0
    for index in images.sample(MASKS_LOOKED_AT):
        path = images.mask_path(Path(arguments['maskpath']), index)
        if not path.exists():  # left out by --skip_bad
            continue
        foreground, valid = seg_target(read_stored_mask(path))
        background = valid & ~foreground
        parts += foreground.mean(), background.mean()
        bare, count = bare + (background.mean() < MIN_BACKGROUND), count + 1
        truth = images.segmentation and images.mask_path(images.segmentation, index)
        if truth and truth.exists():
            true, ignored = read_true_mask(truth, foreground.shape)
            hits += [(part & ~ignored).sum() for part in (
                foreground & true, foreground, true, background & ~true, background)]
    share = 100 * parts / max(count, 1)
    text = (f'pseudo masks of {count} images: foreground {share[0]:.0f} %, background '
            f'{share[1]:.0f} %, ignored {100 - share.sum():.0f} % of the pixels; {bare} images '
            f'have less than {MIN_BACKGROUND:.0%} background')
    if hits[2]:
        found, foreground, true, correct, background = hits
        text += (f'\nforeground precision {100 * found / max(foreground, 1):.1f} %, recall '
                 f'{100 * found / true:.1f} %; background precision '
                 f'{100 * correct / max(background, 1):.1f} %')
    return text


def join_sheets(cam: Path, seg: Path) -> Path:
    """Write report.png: the contact sheet of cam/test --evaluate without its last column, the box,
    and beside it that of seg/test without its first, the image. Both show the same images."""
    from utils.files import write_png
    from utils.images import read_image

    left, right, path = read_image(cam), read_image(seg), seg.with_name('report.png')
    if len(left) != len(right):
        raise InputError(f'{cam} and {seg} show other images: run both tests with the same --show')
    column = right.shape[1] // 4  # image, probability, mask, box
    write_png(path, np.hstack([left[:, :-column], right[:, column:]]))
    return path


if __name__ == '__main__':
    run(main)
