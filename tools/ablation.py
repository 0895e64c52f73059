"""The paper's ablation on a small data set: Figure 1(b), and what each part of SPOL adds.

    python tools/ablation.py                     on the demo's drawn birds, seeds 0, 1, 2
    python tools/ablation.py --data DIR          on your own images, in the CUB layout
    python tools/ablation.py --jobs 8            number of parallel runs (default: one per core)

For each seed it trains MFF-Net 1 with the last 1 to 4 stages fused by addition, concatenation and
multiplication, without MCA and without self-distillation, and evaluates the fused CAMs. It then
trains MFF-Net 2 on the pseudo masks of the paper's network, made at 256 px, with and without their
Gaussian prior. It runs the stage scripts, for fewer steps than the demo.

Writes the metrics of each seed to results/, for the tables of `tools/results.py render`, and to
--out: ablation.png (as Figure 1(b)), curve.png (GT-known over the epochs), and a folder for each
training, whose log.txt has the commands. After an interruption, the same command continues.
"""

import os
import subprocess
import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from tools import results
from utils.arguments import ROOT, Parser, nonnegative_int, positive_int
from utils.datasets import TrainBatches
from utils.errors import InputError, run
from utils.files import read_json, write_json
from utils.lists import cub_images

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
CAM_STEPS, SEG_STEPS = 400, 200  # of SGD, rounded up to whole epochs
SECONDS_BETWEEN_LOOKS = 0.2
stopping = Event()  # ends all commands


def main():
    args = parse()
    settings = {name: str(value) for name, value in vars(args).items()
                if name not in ('seeds', 'jobs', 'out')}
    recorded = read_json(args.out / 'settings.json')
    if recorded not in ({}, settings):
        raise InputError(f'{args.out} belongs to another run, with {recorded}: give the same '
                         'settings, or another --out')
    write_json(args.out / 'settings.json', settings)
    run_all(args)
    write_records(args)
    draw_figures(args)


def parse() -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--data', type=Path, help='a data folder in the CUB layout')
    add('--seeds', type=nonnegative_int, nargs='+', default=[0, 1, 2], help='of the trainings')
    add('--out', type=Path, default=ROOT / 'ablation', help='the output folder')
    add('--jobs', type=positive_int, default=len(os.sched_getaffinity(0)),
        help='number of parallel runs, each on one core or sharing the GPU')
    add('--backbone', default='timm/tf_efficientnet_lite0', help='resnet50 | timm/NAME | ...')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    args.seeds, args.out = sorted(set(args.seeds)), args.out.absolute()
    args.set, args.classes, args.count = 'drawn', 10, 400
    if args.data:
        args.data = args.data.absolute()
        trained, tested = (cub_images(args.data, name, 10**9) for name in ('train.txt', 'val.txt'))
        if tested.boxes is None:
            raise InputError(f'{tested.source} has no boxes to compare with: add them')
        args.classes = int(max(trained.labels.max(), tested.labels.max())) + 1
        args.set, args.count = args.data.name, len(trained)
    args.cam_epochs = -(-CAM_STEPS * BATCH_SIZE // args.count)
    args.seg_epochs = -(-SEG_STEPS * BATCH_SIZE // args.count)
    return args


def folder_of(args: Namespace, seed: int, name: str) -> Path:
    return args.out / f'seed{seed}' / name.replace(' ', '-')


def run_variant(args: Namespace, seed: int, name: str) -> None:
    """Train and evaluate a variant of MFF-Net 1; the paper's is evaluated after each epoch, and
    MFF-Net 2 is trained on its pseudo masks."""
    first = 1 if name == PAPER else args.cam_epochs
    for epoch in range(first, args.cam_epochs + 1):
        train_and_test(args, seed, 'cam', name, epoch, VARIANTS[name])
    for target, prior in ((SPOL, []), (NO_PRIOR, ['--no_prior'])) if name == PAPER else ():
        folder = folder_of(args, seed, target)
        masks = ['--maskpath', folder / 'mask']
        run_stage(args, seed, target, 'cub200-cam/test.py', [
            '--show', 0, *masks, *prior, '--list', 'train.txt', '--resize', 256, '--num_workers', 1,
            '--snapshot', folder_of(args, seed, name) / f'model-{args.cam_epochs}',
            '--savepath', folder / 'masks', '--overwrite'])
        for epoch in range(1, args.seg_epochs + 1):
            train_and_test(args, seed, 'seg', target, epoch, [*masks, '--lr', SEG_LR])


def train_and_test(args: Namespace, seed: int, stage: str, name: str, epoch: int, flags: list
                   ) -> None:
    """Train up to the end of an epoch, where a model is saved and the next call continues."""
    folder = folder_of(args, seed, name)
    epochs = args.cam_epochs if stage == 'cam' else args.seg_epochs
    steps = TrainBatches(args.count, BATCH_SIZE, seed).per_epoch * epoch
    run_stage(args, seed, name, f'cub200-{stage}/train.py', [
        *SIZES, *flags, '--list', 'train.txt', '--batch_size', BATCH_SIZE, '--epoch', epochs,
        '--max_steps', steps, '--savepath', folder, '--num_workers', 0, '--resume', 'auto'])
    kind = ['--evaluate'] if stage == 'cam' else ['--top1top5', 'none']
    run_stage(args, seed, name, f'cub200-{stage}/test.py', [
        '--show', 0, *kind, '--list', 'val.txt', '--sweep', '--snapshot', folder / f'model-{epoch}',
        '--savepath', folder / f'epoch-{epoch}', '--num_workers', 1])


def run_stage(args: Namespace, seed: int, name: str, script: str, flags: list) -> None:
    call(folder_of(args, seed, name), script, [
        '--datapath', args.data or folder_of(args, seed, 'data'), '--clsnum', args.classes,
        '--backbone', args.backbone, '--seed', seed, '--device', args.device, *flags])


def call(folder: Path, script: str, flags: list) -> None:
    """Run a script on one core, unless done.json says that it has ended before. Raises InputError
    if it fails, or is stopped."""
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
        while process.poll() is None:
            if stopping.wait(SECONDS_BETWEEN_LOOKS):
                process.terminate()  # a training then saves its state
                process.wait()
    if process.returncode:
        raise InputError(f'{script} ended with exit code {process.returncode}: see {log}')
    seconds = round(time.monotonic() - begin)
    write_json(done, {**read_json(done), command: {'seconds': seconds, 'commit': code_version}})


def run_all(args: Namespace) -> None:
    """Run what has not ended yet, args.jobs at a time, the longest first. An error or a signal
    stops all of them."""
    for seed in args.seeds if not args.data else ():
        folder = folder_of(args, seed, 'data')
        call(folder.with_name('making-data'), 'dataset/make_mini.py', [
            '--out', folder, '--seed', seed])
    names = sorted(VARIANTS, key=lambda name: name != PAPER)
    with ThreadPoolExecutor(args.jobs) as pool:
        tasks = [pool.submit(run_variant, args, seed, name)
                 for name in names for seed in args.seeds]
        try:
            for task in tqdm(as_completed(tasks), 'variants', len(tasks)):
                task.result()
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# ---------------------------------------------------------------- tables and figures


def metrics_of(args: Namespace, seed: int, name: str, epoch: int) -> dict:
    """What a variant's evaluation after an epoch has written."""
    record = read_json(folder_of(args, seed, name) / f'epoch-{epoch}' / 'results.json')
    return record['evaluation']['fused'] if 'evaluation' in record else record


def write_records(args: Namespace, to: Path = results.RESULTS) -> None:
    flags = f' --data {args.data.name}' if args.data else ''
    for seed in args.seeds:
        trained = read_json(folder_of(args, seed, PAPER) / 'results.json')['training']
        for group, rows in GROUPS.items():
            metrics, done = {}, []
            for row, name in rows.items():
                last = args.cam_epochs if name in VARIANTS else args.seg_epochs
                metrics[row] = results.metrics_of(metrics_of(args, seed, name, last))
                done += read_json(folder_of(args, seed, name) / 'done.json').values()
            results.write_record(
                group, args.set, seed, metrics,
                lists=args.data and results.digests(args.data, 'train.txt', 'val.txt'),
                command=f'python tools/ablation.py{flags} --seeds {seed}',
                commit=results.distinct(entry['commit'] for entry in done),
                versions=trained['versions'], seconds=sum(entry['seconds'] for entry in done),
                folder=to)


def draw_figures(args: Namespace, folder: Path = results.RESULTS) -> None:
    """Print the tables of the records in a folder, and draw ablation.png and curve.png."""
    records = results.read_records(args.set, GROUPS, folder)
    for found in records.values():
        print(f'{results.table([found])}\n')
    rows = results.summarize(records['fusion'])
    chart = Figure(figsize=(11, 4), layout='constrained')
    for axes, metric in zip(chart.subplots(1, 2), ('GT-known', 'MaxBoxAccV2'), strict=True):
        lines = {fusion: [rows[name][metric] for name in (
            ONE_STAGE, *(f'{fusion} {stages}' for stages in STAGES))] for fusion in FUSIONS}
        draw(axes, 'last stages fused', metric, lines)
    chart.savefig(args.out / 'ablation.png', dpi=120)
    lines = {}
    for label, name, epochs in (('fused CAM', PAPER, args.cam_epochs),
                                (SPOL, SPOL, args.seg_epochs)):
        lines[label] = [results.mean_and_std([
            100 * metrics_of(args, seed, name, epoch)['strict']['gt_known']
            for seed in args.seeds]) for epoch in range(1, epochs + 1)]
    chart = Figure(figsize=(6, 4), layout='constrained')
    draw(chart.subplots(), 'epochs of its stage', 'GT-known at 0.2', lines)
    chart.savefig(args.out / 'curve.png', dpi=120)
    print(f'wrote ablation.png and curve.png to {args.out}')


def draw(axes: Axes, x_label: str, metric: str, lines: dict[str, list]) -> None:
    """Draw a line of (mean, standard deviation) for each name."""
    for name, points in lines.items():
        means, deviations = zip(*points, strict=True)
        axes.errorbar(range(1, len(points) + 1), means, deviations, marker='o', capsize=3,
                      label=name)
    longest = max(map(len, lines.values()))
    axes.set(xlabel=x_label, ylabel=f'{metric}, %', xticks=range(1, longest + 1))
    axes.grid(alpha=0.3)
    axes.legend()


if __name__ == '__main__':
    run(main)
