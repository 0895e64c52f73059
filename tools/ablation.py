"""The paper's ablation on a small data set: Figure 1(b), and what each part of SPOL adds.

    python tools/ablation.py                     on the demo's drawn birds, seeds 0, 1, 2
    python tools/ablation.py --data DIR          on your own images, in the CUB layout
    python tools/ablation.py --photos DIR        on composites of DIR/cutouts and DIR/backgrounds
    python tools/ablation.py --jobs 8            number of parallel runs (default: one per core)

For each seed it trains MFF-Net 1 with the last 1 to 4 stages fused by addition, concatenation and
multiplication, without MCA and without self-distillation, and evaluates the fused CAMs. It then
trains MFF-Net 2 on the pseudo masks of the paper's network, made at 256 px, with and without their
Gaussian prior. Training runs are shorter than the demo's. Drawn birds and composites are made anew
for each seed.

Writes the metrics of each seed to results/, for the tables of `tools/results.py render`, and to
--out: ablation.png (arranged as Fig. 1(b)), curve.png (GT-known over the epochs), and a folder for
each training run. After an interruption, the same command continues.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import records
from tools.ablations.variants import (
    PARTS,
    VARIANTS,
    Settings,
    data_folder,
    figure_1b_names,
    read_metrics,
    run_folder,
)
from utils.arguments import (
    ROOT,
    Parser,
    nonnegative_int,
    positive_float,
    positive_int,
    seed,
    select,
)
from utils.data import cub
from utils.errors import InputError, run
from utils.outputs.files import write_bytes, write_json
from utils.outputs.results import read_results

MADE_CLASSES, MADE_IMAGES = 10, 400  # of the sets that make_mini.py makes
CAM_STEPS, SEG_STEPS = 400, 200  # of SGD, rounded up to whole epochs
TUNED = ('backbone', 'resize', 'crop', 'batch_size', 'cam_epochs', 'seg_epochs', 'seg_lr')
LABELS = 10**9  # above every label, for lists whose number of classes is not known


def main():
    args = parse()
    settings = select(args, Settings)
    check_settings(args.out, {**asdict(settings), 'seeds': args.seeds, 'commit': records.commit()})
    if not settings.data:
        for number in args.seeds:
            make_images(data_folder(args.out, number, settings), number, settings.photos)
    run_all(args.out, args.seeds, settings, args.jobs)
    write_results(args.out, args.seeds, settings)


def parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--data', type=Path, help='a data folder in the CUB layout')
    add('--train', default='train.txt', help='the training list: a path, or a file in --data')
    add('--val', default='val.txt', help='the list to evaluate on, with boxes')
    add('--photos', type=Path, help='composites of its cutouts/ and backgrounds/')
    add('--seeds', type=seed, nargs='+', default=[0, 1, 2], help='seeds of the training runs')
    add('--out', type=Path, default=ROOT / 'ablation', help='the output folder')
    add('--jobs', type=positive_int,
        help='number of parallel runs, each on one core or sharing the GPU (default: one per core)')
    add('--backbone', default='timm/tf_efficientnet_lite0',
        help='resnet50 | resnet101 | resnet152 | timm/NAME')
    add('--resize', type=positive_int, default=148, help='images are resized to this square')
    add('--crop', type=nonnegative_int, default=128, help='size of the crop')
    add('--batch_size', type=positive_int, default=8, help='images in a batch')
    add('--cam_epochs', type=positive_int,
        help=f'epochs of MFF-Net 1 (default: as many as make {CAM_STEPS} steps)')
    add('--seg_epochs', type=positive_int,
        help=f'epochs of MFF-Net 2 (default: as many as make {SEG_STEPS} steps)')
    add('--seg_lr', type=positive_float, default=0.1, help='learning rate of MFF-Net 2')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    if args.data and args.photos:
        raise InputError('--data and --photos exclude each other: give one of them')
    args.seeds = sorted(set(args.seeds))
    args.out = args.out.absolute()
    for name in ('data', 'photos'):
        folder = getattr(args, name)
        setattr(args, name, folder and str(folder.absolute()))
    args.classes, images = read_data(args) if args.data else (MADE_CLASSES, MADE_IMAGES)
    for name, steps in (('cam_epochs', CAM_STEPS), ('seg_epochs', SEG_STEPS)):
        setattr(args, name, getattr(args, name) or -(-steps * args.batch_size // images))
    return args


def read_data(args: argparse.Namespace) -> tuple[int, int]:
    """The number of classes in both lists, and of training images. Raises InputError."""
    train, val = (cub.read_images(Path(args.data), name, LABELS) for name in (args.train, args.val))
    if val.boxes is None:
        raise InputError(f'{val.source} has no boxes to compare with: add them')
    return int(max(train.labels.max(), val.labels.max())) + 1, len(train)


def check_settings(out: Path, settings: dict) -> None:
    """Record the settings of a new ablation; refuse to continue one with other settings."""
    path = out / 'settings.json'
    if not path.exists():
        write_json(path, settings)
    recorded = read_results(path)
    for name, value in settings.items():
        if name not in ('seeds', 'commit') and recorded.get(name) != value:
            raise InputError(f'{out} was started with --{name} {recorded.get(name)}, not {value}: '
                             'use the same value, or another --out')


def make_images(folder: Path, number: int, photos: str | None) -> None:
    """Make the seed's data set; an existing one made with the same arguments is kept."""
    source = ['--cutouts', f'{photos}/cutouts', '--backgrounds', f'{photos}/backgrounds']
    command = [sys.executable, ROOT / 'dataset' / 'make_mini.py', '--out', folder,
               '--seed', number, *(source if photos else [])]
    code = subprocess.run([*map(str, command)], check=False).returncode
    if code:
        sys.exit(code)


def run_all(out: Path, seeds: list[int], settings: Settings, jobs: int | None) -> None:
    """Run all training runs that are not complete, `jobs` at a time, the longest first."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    from tools.ablations.workbench import run_variant
    from utils.engine.device import available_cores

    begin = time.monotonic()
    with ProcessPoolExecutor(jobs or available_cores(), get_context('spawn')) as pool:
        tasks = [pool.submit(run_variant, out, number, name, settings)
                 for name in VARIANTS for number in seeds]
        try:
            for done, task in enumerate(as_completed(tasks), 1):
                label = task.result()
                passed = time.monotonic() - begin
                print(f'[{done}/{len(tasks)}] {label}; {passed / 60:.1f} min, about '
                      f'{passed / done * (len(tasks) - done) / 60:.0f} min left', flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_results(out: Path, seeds: list[int], settings: Settings,
                  folder: Path = records.RESULTS) -> None:
    """The records of all seeds, and ablation.png and curve.png."""
    from tools.ablations.charts import curves, figure_1b, learning_curve

    data_set = records.set_name(settings.data, settings.train, bool(settings.photos))
    groups = {'fusion': {name: name for name in figure_1b_names()}, 'parts': PARTS}
    for name, rows in groups.items():
        for number in seeds:
            write_group(name, rows, out, number, settings, folder)
    written = {name: [record for record in several if record['seed'] in seeds]
               for name, several in records.read_records(data_set, groups, folder).items()}
    write_bytes(out / 'ablation.png', figure_1b(records.summarize(written['fusion'])))
    write_bytes(out / 'curve.png', learning_curve(curves(out, seeds)))
    for name, several in written.items():
        print(f'\n{records.table({name: several})}')
    print(f'\nwrote the metrics to {folder}, ablation.png and curve.png to {out}')


def write_group(name: str, rows: dict[str, str], out: Path, number: int, settings: Settings,
                folder: Path) -> None:
    """The record of one seed; `rows`: row of the table -> run."""
    runs = {row: run_folder(out, number, run) for row, run in rows.items()}
    results = [read_results(path / 'results.json') for path in runs.values()]
    recorded = read_results(out / 'settings.json')
    where = settings.data, settings.train
    tuned = ' '.join(f'--{option} {getattr(settings, option)}' for option in TUNED)
    flags = records.set_flags(*where, settings.val, bool(settings.photos))
    records.write_record(
        name, records.set_name(*where, bool(settings.photos)), number,
        {row: records.metrics_of(read_metrics(path)) for row, path in runs.items()},
        command=f'python tools/ablation.py{flags} --seeds {number} {tuned}',
        commit=recorded['commit'], versions=results[0]['training']['versions'], folder=folder,
        seconds=sum(result['training']['seconds'] for result in results))


if __name__ == '__main__':
    run(main)
