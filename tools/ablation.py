"""The paper's ablation on a small data set: Figure 1(b), and what each part of SPOL adds.

    python tools/ablation.py                     on the demo's drawn birds, seeds 0, 1, 2
    python tools/ablation.py --data DIR          on your own images, in the CUB layout
    python tools/ablation.py --jobs 8            number of parallel runs (default: one per core)

For each seed it trains MFF-Net 1 with the last 1 to 4 stages fused by addition, concatenation and
multiplication, without MCA and without self-distillation, and evaluates the fused CAMs. It then
trains MFF-Net 2 on the pseudo masks of the paper's network, made at 256 px, with and without their
Gaussian prior. It runs the stage scripts, for fewer steps than the demo. Drawn birds are made anew
for each seed.

Writes the metrics of each seed to results/, for the tables of `tools/results.py render`, and to
--out: ablation.png (arranged as Figure 1(b)), curve.png (GT-known over the epochs), and a folder
for each training, whose log.txt has the commands. After an interruption, the same command
continues.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import results
from utils.arguments import ROOT, Parser, nonnegative_int, positive_int
from utils.errors import InputError, run
from utils.files import keep_settings, read_json, write_bytes, write_json

STAGES, FUSIONS = ('45', '345', '2345'), ('add', 'concatenate', 'multiply')
ONE_STAGE, PAPER = 'stage 5 alone', 'multiply 345'
SPOL, NO_PRIOR = 'SPOL', 'SPOL without the Gaussian prior'
FUSED = {f'{fusion} {stages}': ['--stages', stages, '--fusion', fusion]
         for fusion in FUSIONS for stages in STAGES}
VARIANTS = {  # name -> flags of cam/train
    **FUSED,
    ONE_STAGE: ['--stages', '5', '--no_distillation'],  # nothing to distil from
    'without MCA': ['--no_attention'],
    'without self-distillation': ['--no_distillation'],
}
GROUPS = {  # record -> {row of its table: variant}
    'fusion': {name: name for name in (ONE_STAGE, *FUSED)},
    'parts': {
        'CAM without MCA': 'without MCA',
        'CAM without self-distillation': 'without self-distillation',
        'CAM, complete (multiply 345)': PAPER,
        'segmentation, pseudo masks without the Gaussian prior': NO_PRIOR,
        'segmentation: SPOL': SPOL,
    },
}
BATCH_SIZE, SIZES, SEG_LR = 8, ['--resize', 148, '--crop', 128], 0.1
AT_EPOCH = ['--metrics', 'paper']  # for the learning curve
CAM_STEPS, SEG_STEPS = 400, 200  # of SGD, rounded up to whole epochs
Command = tuple[Path, str, list]  # folder of a training, script, flags
running: set[subprocess.Popen] = set()
stopping = Event()


def main():
    args = parse()
    keep_settings(args.out / 'settings.json', {
        name: str(value) for name, value in vars(args).items()
        if name not in ('seeds', 'jobs', 'out')})
    run_all(args)
    write_records(args)
    draw_figures(args)


def parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--data', type=Path, help='a data folder in the CUB layout')
    add('--train', default='train.txt', help='the training list: a path, or a file in --data')
    add('--val', default='val.txt', help='the list to evaluate on, with boxes')
    add('--seeds', type=nonnegative_int, nargs='+', default=[0, 1, 2], help='of the trainings')
    add('--out', type=Path, default=ROOT / 'ablation', help='the output folder')
    add('--jobs', type=positive_int, default=len(os.sched_getaffinity(0)),
        help='number of parallel runs, each on one core or sharing the GPU')
    add('--backbone', default='timm/tf_efficientnet_lite0',
        help='resnet50 | resnet101 | resnet152 | timm/NAME')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    args.seeds, args.out = sorted(set(args.seeds)), args.out.absolute()
    args.classes, args.count = 10, 400  # of drawn birds
    if args.data:
        args.data = args.data.absolute()
        args.classes, args.count = read_data(args.data, args.train, args.val)
    args.cam_epochs = -(-CAM_STEPS * BATCH_SIZE // args.count)
    args.seg_epochs = -(-SEG_STEPS * BATCH_SIZE // args.count)
    return args


def read_data(data: Path, train: str, val: str) -> tuple[int, int]:
    """The number of classes in both lists, and of training images. Raises InputError."""
    from utils.lists import cub_images

    trained, tested = (cub_images(data, name, 10**9) for name in (train, val))
    if tested.boxes is None:
        raise InputError(f'{tested.source} has no boxes to compare with: add them')
    return int(max(trained.labels.max(), tested.labels.max())) + 1, len(trained)


# ---------------------------------------------------------------- the runs


def folder_of(args: argparse.Namespace, seed: int, name: str) -> Path:
    return args.out / f'seed{seed}' / name.replace(' ', '-')


def commands(args: argparse.Namespace, seed: int, name: str) -> Iterator[Command]:
    """Those of a variant: MFF-Net 1 is trained and evaluated; with the paper's, which is evaluated
    after each epoch, MFF-Net 2 is trained on its pseudo masks."""
    from utils.datasets import TrainBatches

    folder, data = folder_of(args, seed, name), args.data or folder_of(args, seed, 'data')
    given = ['--datapath', data, '--clsnum', args.classes, '--backbone', args.backbone,
             '--seed', seed, '--device', args.device, '--show', 0]
    train = [*given, *SIZES, '--list', args.train, '--batch_size', BATCH_SIZE,
             '--num_workers', 0, '--resume', 'auto']
    test = [*given, '--list', args.val, '--num_workers', 1]
    cam_train = [*train, '--savepath', folder, '--epoch', args.cam_epochs, *VARIANTS[name]]
    # cam/train keeps late epochs alone; but wherever it stops it saves a model, and can continue.
    steps = TrainBatches(args.count, BATCH_SIZE, seed).per_epoch
    for epoch in range(1, args.cam_epochs + 1) if name == PAPER else ():
        yield folder, 'cub200-cam/train.py', [*cam_train, '--max_steps', epoch * steps]
        yield evaluation(folder, 'cam', epoch, [*test, *AT_EPOCH], f'epoch-{epoch}')
    yield folder, 'cub200-cam/train.py', cam_train
    yield evaluation(folder, 'cam', args.cam_epochs, [*test, '--sweep'])
    if name != PAPER:
        return
    snapshot = folder / f'model-{args.cam_epochs}'
    for target, prior in ((SPOL, []), (NO_PRIOR, ['--no_prior'])):
        folder = folder_of(args, seed, target)
        masks = ['--maskpath', folder / 'mask']
        yield folder, 'cub200-cam/test.py', [
            *given, *masks, *prior, '--list', args.train, '--resize', 256, '--num_workers', 1,
            '--snapshot', snapshot, '--savepath', folder / 'masks', '--overwrite']
        yield folder, 'cub200-seg/train.py', [
            *train, *masks, '--savepath', folder, '--epoch', args.seg_epochs, '--lr', SEG_LR]
        for epoch in range(1, args.seg_epochs + 1):
            yield evaluation(folder, 'seg', epoch, [*test, *AT_EPOCH], f'epoch-{epoch}')
        yield evaluation(folder, 'seg', args.seg_epochs, [*test, '--sweep'])


def evaluation(folder: Path, kind: str, epoch: int, flags: list, out: str = '.') -> Command:
    """That of the model of an epoch; `out`: the folder in `folder` to write to."""
    more = ['--evaluate'] if kind == 'cam' else ['--top1top5', 'none']
    return folder, f'cub200-{kind}/test.py', [
        *flags, *more, '--snapshot', folder / f'model-{epoch}', '--savepath', folder / out]


def call(folder: Path, script: str, flags: list) -> None:
    """Run a script on one core, unless done.json says that it has ended before. Raises InputError
    if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ' '.join(map(str, [script, *flags]))
    done, log = folder / 'done.json', folder / 'log.txt'
    if command in read_json(done):
        return
    begin, code_version = time.monotonic(), results.commit()
    with open(log, 'a') as file:
        print(command, file=file, flush=True)
        process = subprocess.Popen([sys.executable, ROOT / script, *map(str, flags)], stdout=file,
                                   stderr=file, env={**os.environ, 'OMP_NUM_THREADS': '1'})
        running.add(process)
        if stopping.is_set():
            process.terminate()
        code = process.wait()
        running.discard(process)
    if code:
        raise InputError(f'{script} ended with exit code {code}: see {log}')
    seconds = round(time.monotonic() - begin)
    write_json(done, {**read_json(done), command: {'seconds': seconds, 'commit': code_version}})


def run_variant(args: argparse.Namespace, seed: int, name: str) -> str:
    for command in commands(args, seed, name):
        call(*command)
    return f'seed {seed}, {name}'


def run_all(args: argparse.Namespace) -> None:
    """Run what has not ended yet, args.jobs at a time, the longest first. An error or a signal
    stops all of them; trainings then save their state."""
    for seed in args.seeds if not args.data else ():
        folder = folder_of(args, seed, 'data')
        call(folder.with_name('making-data'), 'dataset/make_mini.py', [
            '--out', folder, '--seed', seed])
    begin, names = time.monotonic(), sorted(VARIANTS, key=lambda name: name != PAPER)
    with ThreadPoolExecutor(args.jobs) as pool:
        tasks = [pool.submit(run_variant, args, seed, name)
                 for name in names for seed in args.seeds]
        try:
            for done, task in enumerate(as_completed(tasks), 1):
                label, minutes = task.result(), (time.monotonic() - begin) / 60
                print(f'[{done}/{len(tasks)}] {label}; {minutes:.1f} min, about '
                      f'{minutes / done * (len(tasks) - done):.0f} min left', flush=True)
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()
            raise


# ---------------------------------------------------------------- tables and figures


def read_metrics(folder: Path) -> dict:
    """The metrics in a folder's results.json, of the fused CAMs or of the segmentation."""
    record = read_json(folder / 'results.json')
    return record['evaluation']['fused'] if 'evaluation' in record else record


def set_of(args: argparse.Namespace) -> str:
    return results.default_name(args.data, args.train) if args.data else 'drawn'


def write_records(args: argparse.Namespace, to: Path = results.RESULTS) -> None:
    flags = results.flags_of(args.data, args.train, args.val)
    for seed in args.seeds:
        for group, rows in GROUPS.items():
            folders = {row: folder_of(args, seed, name) for row, name in rows.items()}
            done = [entry for folder in folders.values()
                    for entry in read_json(folder / 'done.json').values()]
            trained = read_json(next(iter(folders.values())) / 'results.json')['training']
            results.write_record(
                group, set_of(args), seed,
                {row: results.metrics_of(read_metrics(path)) for row, path in folders.items()},
                lists=args.data and results.digests(args.data, args.train, args.val),
                command=f'python tools/ablation.py{flags} --seeds {seed}',
                commit=results.distinct(entry['commit'] for entry in done),
                versions=trained['versions'], seconds=sum(entry['seconds'] for entry in done),
                folder=to)


def draw_figures(args: argparse.Namespace, records: Path = results.RESULTS) -> None:
    """Print the tables, and draw ablation.png and curve.png."""
    for group, found in results.read_records(set_of(args), GROUPS, records).items():
        found = [record for record in found if record['seed'] in args.seeds]
        print(f'{results.table([found])}\n')
        if group == 'fusion':
            rows = results.summarize(found)
            draw(args.out / 'ablation.png', 'last stages fused', {
                metric: {fusion: [rows[name][metric] for name in (
                    ONE_STAGE, *(f'{fusion} {stages}' for stages in STAGES))]
                    for fusion in FUSIONS} for metric in ('GT-known', 'MaxBoxAccV2')})
    curves = {}
    for label, name, epochs in (('fused CAM', PAPER, args.cam_epochs),
                                (SPOL, SPOL, args.seg_epochs)):
        found = [[100 * read_metrics(folder_of(args, seed, name) / f'epoch-{epoch}')['strict'][
            'gt_known'] for seed in args.seeds] for epoch in range(1, epochs + 1)]
        curves[label] = [results.mean_and_std(values) for values in found]
    draw(args.out / 'curve.png', 'epochs of its stage', {'GT-known at 0.2': curves})


def draw(path: Path, x_label: str, plots: dict[str, dict[str, list[tuple[float, float]]]]) -> None:
    """A plot for each metric, with a line of means and standard deviations for each name."""
    from matplotlib.figure import Figure

    from utils.drawing import png_of

    chart = Figure(figsize=(1 + 5 * len(plots), 4), layout='constrained')
    for number, (metric, lines) in enumerate(plots.items(), 1):
        axes = chart.add_subplot(1, len(plots), number)
        for name, points in lines.items():
            means, deviations = zip(*points, strict=True)
            axes.errorbar(range(1, len(points) + 1), means, deviations, marker='o', capsize=3,
                          label=name)
        longest = max(map(len, lines.values()))
        axes.set(xlabel=x_label, ylabel=f'{metric}, %', xticks=range(1, longest + 1))
        axes.grid(alpha=0.3)
        axes.legend()
    write_bytes(path, png_of(chart))
    print(f'wrote {path}')


if __name__ == '__main__':
    run(main)
