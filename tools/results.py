"""The results tables of README and docs: measure, record, render.

    python tools/results.py run --data DIR --seeds 0 1 2    demo.sh --data DIR for each seed
    python tools/results.py run                             demo.sh on its drawn birds
    python tools/results.py collect --run NAME              a run of demo.sh that has ended
    python tools/results.py render                          the tables, from results/

`run` and `collect` write results/<set>-demo-<seed>.json (see tools/records.py). `run` leaves out
the seeds that are recorded, so that after an interruption the same command continues.

`render` fills what stands between `<!-- results: SET [NAME ...] -->` and `<!-- end -->` in README
and docs with a table of the records of that set: of the demo, or of the groups named. Several sets,
joined by commas, are one table. Cells are mean ± sample standard deviation over the seeds.
"""

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import records
from utils.arguments import NETWORKS, ROOT, Parser, seed
from utils.errors import InputError, run
from utils.outputs.files import write_text
from utils.outputs.results import read_results

TABLE = re.compile(r'(<!-- results: (\S+)((?: \S+)*) -->\n).*?(<!-- end -->)', re.DOTALL)


def main():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('action', choices=['run', 'collect', 'render'], help='what to do')
    add('--data', type=Path, help='run: a data folder in the CUB layout')
    add('--train', default='train.txt', help='run: the training list, as demo.sh takes it')
    add('--val', default='val.txt', help='run: the list to test on')
    add('--photos', type=Path, help='run: composites of its cutouts/ and backgrounds/')
    add('--seeds', type=seed, nargs='+', default=[0, 1, 2], help='run: the seeds')
    add('--run', default='mini', metavar='NAME', help="collect: folder in each stage's out/")
    args = parser.parse_args()
    if args.action == 'run':
        run_seeds(args.seeds, args.data, args.train, args.val, args.photos)
    elif args.action == 'collect':
        print(f'wrote {collect(args.run, records.commit())}')
    else:
        render([ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))])


def run_seeds(seeds: list[int], data: Path | None, train: str, val: str, photos: Path | None
              ) -> None:
    """Run demo.sh for each seed that is not recorded, and record it."""
    name = records.set_name(data and data.resolve().name, train, bool(photos))
    flags = [str(word) for flag, value in (('--data', data), ('--photos', photos)) if value
             for word in (flag, value)]
    if data:
        flags += ['--train', train, '--val', val]
    for number in seeds:
        if (records.RESULTS / f'{name}-demo-{number}.json').exists():
            continue
        begun = records.commit()
        command = ['bash', str(ROOT / 'demo.sh'), '--seed', str(number), *flags]
        if code := subprocess.run(command, check=False).returncode:
            raise InputError(f'demo.sh ended with exit code {code}: see above')
        print(f'wrote {collect(name if data else "mini", begun)}')


def collect(name: str, code: str, root: Path = ROOT, folder: Path = records.RESULTS) -> Path:
    """Record a run of demo.sh; `code`: its commit. Raises InputError if it is incomplete."""
    cls, cam, seg = (read_results(root / f'cub200-{stage}' / 'out' / name / 'results.json')
                     for stage in NETWORKS)
    if 'top1' not in cls or 'evaluation' not in cam or 'sweep' not in seg:
        raise InputError(f'{root}/cub200-*/out/{name} has no complete run on a list with boxes: '
                         'run demo.sh')
    trained, tested = seg['training']['arguments'], seg['arguments']
    made = read_results(Path(trained['datapath']) / 'mini.json')  # empty for other data
    where = None if made else trained['datapath'], trained['list']
    photos = bool(made.get('cutouts'))
    metrics = {'plain CAM': records.metrics_of(cam['evaluation']['deep']),
               'fused CAM': records.metrics_of(cam['evaluation']['fused']),
               'SPOL': records.metrics_of(seg),
               'classifier': {'Top-1': round(100 * cls['top1'], 2)}}
    number = trained['seed']
    return records.write_record(
        'demo', records.set_name(*where, photos), number, metrics,
        command=f'bash demo.sh{records.set_flags(*where, tested["list"], photos)} --seed {number}',
        commit=code, versions=seg['versions'], folder=folder,
        seconds=sum(seconds_of(results) for results in (cls, cam, seg)))


def seconds_of(results: dict) -> float:
    """The seconds of all sections of a results.json."""
    return results['seconds'] + sum(section['seconds'] for section in results.values()
                                    if isinstance(section, dict) and 'seconds' in section)


def render(paths: list[Path]) -> None:
    for path in paths:
        old = path.read_text()
        if (new := rendered(old)) != old:
            write_text(path, new)
            print(f'wrote {path}')


def rendered(text: str, folder: Path = records.RESULTS) -> str:
    """The text with its tables made from the records in `folder`. Raises InputError."""
    def content(match: re.Match) -> str:
        sets, names = match[2].split(','), match[3].split() or ['demo']
        found = {}
        for data_set in sets:
            for name, several in records.read_records(data_set, names, folder).items():
                if len(sets) == 1:
                    found[name] = several
                else:
                    found[f'{data_set} {name}'] = records.prefixed(several, data_set)
        return f'{match[1]}{records.table(found)}\n{match[4]}'

    return TABLE.sub(content, text)


if __name__ == '__main__':
    run(main)
