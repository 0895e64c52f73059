"""The README's results: mean and standard deviation of demo.sh over several seeds.

    python tools/seeds.py                 drawn birds, seeds 0, 1, 2
    python tools/seeds.py --photos DIR    also composites of DIR/cutouts and DIR/backgrounds

The results.json of each run's three stages is copied to --out, in <set>-<seed>/. Runs whose results
exist there are not repeated. Writes --out/seeds.md.
"""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.summary import markdown, mean_and_std, metrics_of, summaries
from utils.arguments import ROOT, Parser, seed
from utils.errors import InputError, run
from utils.outputs.files import write_text

STAGES = ('cls', 'cam', 'seg')


def main():
    parser = Parser(__doc__)
    parser.add_argument('--seeds', type=seed, nargs='+', default=[0, 1, 2],
                        help='seeds, each with its own data set and training runs')
    parser.add_argument('--photos', type=Path,
                        help='folder with cutouts/ and backgrounds/, for composites')
    parser.add_argument('--out', type=Path, default=ROOT / 'seeds', help='the output folder')
    args = parser.parse_args()
    sets = {'drawn': [], **({'photos': ['--photos', args.photos]} if args.photos else {})}
    tables = []
    for name, flags in sets.items():
        folders = [run_demo(args.out / f'{name}-{number}', number, flags)
                   for number in args.seeds]
        tables.append(f'{name}: {table(folders)}')
    write_text(args.out / 'seeds.md', '\n\n'.join(tables) + '\n')
    print('\n' + '\n\n'.join(tables) + f'\n\nwrote {args.out / "seeds.md"}')


def run_demo(folder: Path, number: int, flags: list) -> Path:
    """Run demo.sh and copy its results to `folder`, unless they exist there."""
    if not (folder / 'seg.json').exists():
        command = ['bash', str(ROOT / 'demo.sh'), '--seed', str(number), *map(str, flags)]
        if code := subprocess.run(command, check=False).returncode:
            raise InputError(f'demo.sh ended with exit code {code}: see above')
        for stage in STAGES:  # seg.json comes last: it marks a complete copy
            results = ROOT / f'cub200-{stage}' / 'out' / 'mini' / 'results.json'
            write_text(folder / f'{stage}.json', results.read_text())
    return folder


def table(folders: list[Path]) -> str:
    """The metrics of runs over seeds."""
    records = {stage: [json.loads((folder / f'{stage}.json').read_text()) for folder in folders]
               for stage in STAGES}
    runs = {
        'plain CAM': [metrics_of(record['evaluation']['deep']) for record in records['cam']],
        'fused CAM': [metrics_of(record['evaluation']['fused']) for record in records['cam']],
        'SPOL': [metrics_of(record) for record in records['seg']]}
    mean, std = mean_and_std([100 * record['top1'] for record in records['cls']])
    return (f'{len(folders)} seeds; classification top-1 {mean:.1f} ± {std:.1f} %\n\n'
            + markdown('GT-known, strict count, %', summaries(runs)))


if __name__ == '__main__':
    run(main)
