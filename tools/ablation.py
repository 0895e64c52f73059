"""The paper's ablation on a small data set: Figure 1(b), and what each part of SPOL adds.

    python tools/ablation.py                     on the demo's drawn birds, seeds 0, 1, 2
    python tools/ablation.py --photos DIR        on composites of DIR/cutouts and DIR/backgrounds
    python tools/ablation.py --jobs 8            number of parallel runs (default: one per core)

For each seed it makes a data set, trains MFF-Net 1 with the last 1 to 4 stages fused by addition,
concatenation and multiplication, without MCA and without self-distillation, and evaluates the fused
CAMs. It then trains MFF-Net 2 on the pseudo masks of the paper's network, made at 256 px, with and
without their Gaussian prior. Training runs are shorter than the demo's.

Writes to --out: ablation.md and ablation.csv (mean and standard deviation over the seeds),
ablation.png (arranged as Fig. 1(b)), curve.png (GT-known over the epochs), and a folder for each
training run. After an interruption, the same command continues.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.summary import csv_rows, markdown, mean_and_std, metrics_of, summaries
from utils.arguments import (
    ROOT,
    Parser,
    nonnegative_int,
    positive_float,
    positive_int,
    seed,
    select,
)
from utils.errors import InputError, run
from utils.outputs.files import atomic_write, write_json, write_text

CLASSES = 10
STAGES = ('5', '45', '345', '2345')  # of the backbone
FUSIONS = ('add', 'concatenate', 'multiply')
PAPER = 'multiply 345'
VARIANTS = {  # name -> the parameters of CamNet
    PAPER: {},
    'without MCA': {'attention': False},
    'without self-distillation': {'auxiliary': False},
    'stage 5 alone': {'stages': '5', 'auxiliary': False},  # nothing to distil from
    **{f'{fusion} {stages}': {'stages': stages, 'fusion': fusion}
       for stages in STAGES[1:] for fusion in FUSIONS if f'{fusion} {stages}' != PAPER},
}
WITHOUT_PRIOR = 'SPOL without the Gaussian prior'


@dataclass(frozen=True)
class Settings:
    """The settings that all training runs of an ablation share."""

    photos: str | None
    train: int
    val: int
    backbone: str
    resize: int
    crop: int
    batch_size: int
    cam_epochs: int
    seg_epochs: int
    seg_lr: float
    device: str


def main():
    args = parse()
    settings = select(args, Settings)
    check_settings(args.out, {**asdict(settings), 'seeds': args.seeds})
    for number in args.seeds:
        make_images(args.out, number, settings)
    run_all(args.out, args.seeds, settings, args.jobs)
    write_results(args.out, args.seeds)


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--photos', help='composites of its cutouts/ and backgrounds/ instead of drawn birds')
    add('--seeds', type=seed, nargs='+', default=[0, 1, 2],
        help='seeds, each with its own data set and training runs')
    add('--out', type=Path, default=ROOT / 'ablation', help='the output folder')
    add('--jobs', type=positive_int,
        help='number of parallel runs, each on one core or sharing the GPU (default: one per core)')
    add('--train', type=positive_int, default=40, help='training images per class')
    add('--val', type=positive_int, default=20, help='validation images per class')
    add('--backbone', default='timm/tf_efficientnet_lite0',
        help='resnet50 | resnet101 | resnet152 | timm/NAME')
    add('--resize', type=positive_int, default=148, help='images are resized to this square')
    add('--crop', type=nonnegative_int, default=128, help='size of the crop')
    add('--batch_size', type=positive_int, default=8, help='images in a batch')
    add('--cam_epochs', type=positive_int, default=8, help='epochs of MFF-Net 1')
    add('--seg_epochs', type=positive_int, default=4, help='epochs of MFF-Net 2')
    add('--seg_lr', type=positive_float, default=0.1, help='learning rate of MFF-Net 2')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    args.seeds = sorted(set(args.seeds))
    args.out = args.out.absolute()
    args.photos = args.photos and os.path.abspath(args.photos)
    return args


def check_settings(out: Path, settings: dict) -> None:
    """Record the settings of a new ablation; refuse to continue one with other settings."""
    path = out / 'settings.json'
    if not path.exists():
        write_json(path, settings)
    recorded = json.loads(path.read_text())
    for name, value in settings.items():
        if name != 'seeds' and recorded.get(name) != value:
            raise InputError(f'{out} was started with --{name} {recorded.get(name)}, not {value}: '
                             'use the same value, or another --out')


def make_images(out: Path, number: int, settings: Settings) -> None:
    """Make the seed's data set; an existing one made with the same arguments is kept."""
    source = []
    if settings.photos:
        source = ['--cutouts', f'{settings.photos}/cutouts',
                  '--backgrounds', f'{settings.photos}/backgrounds']
    command = [sys.executable, ROOT / 'dataset' / 'make_mini.py', '--out', data_folder(out, number),
               '--seed', number, '--classes', CLASSES, '--train', settings.train,
               '--val', settings.val, *source]
    code = subprocess.run([*map(str, command)], check=False).returncode
    if code:
        sys.exit(code)


def data_folder(out: Path, number: int) -> Path:
    return out / f'seed{number}' / 'data'


def run_folder(out: Path, number: int, name: str) -> Path:
    return out / f'seed{number}' / name.replace(' ', '-')


# ---------------------------------------------------------------- training


def run_all(out: Path, seeds: list[int], settings: Settings, jobs: int | None) -> None:
    """Run all training runs that are not complete, `jobs` at a time, the longest first."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    from utils.engine.device import available_cores

    begin, done = time.monotonic(), 0
    with ProcessPoolExecutor(jobs or available_cores(), get_context('spawn')) as pool:
        tasks = [pool.submit(run_variant, out, number, name, settings)
                 for name in VARIANTS for number in seeds]
        try:
            for task in as_completed(tasks):
                label = task.result()
                done += 1
                passed = time.monotonic() - begin
                print(f'[{done}/{len(tasks)}] {label}; {passed / 60:.1f} min, about '
                      f'{passed / done * (len(tasks) - done) / 60:.0f} min left', flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run_variant(out: Path, number: int, name: str, settings: Settings) -> str:
    """Train and evaluate one variant in this process, on one core; for the paper's network, the
    segmentation as well. Returns a line of text. Messages go to log.txt."""
    from contextlib import redirect_stderr, redirect_stdout

    import torch

    from utils.engine.device import init_distributed_device

    torch.set_num_threads(1)
    folder = run_folder(out, number, name)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'log.txt', 'a') as log, redirect_stdout(log), redirect_stderr(log):
        bench = Workbench(out, number, settings, init_distributed_device(settings.device, number))
        bench.train_cam(name)
        if name == PAPER:
            bench.train_segmentations(name)
    return f'seed {number}, {name}'


class Workbench:
    """Trains and evaluates the networks of one seed, on its data set."""

    def __init__(self, out: Path, number: int, settings: Settings, device):
        from utils.data import cub
        from utils.data.transforms import eval_transform
        from utils.engine.inference import Inference, InferenceOptions
        from utils.localization.boxes import CentreCrop
        from utils.localization.pseudo_mask import MASK_SIDE

        self.out, self.seed, self.settings, self.device = out, number, settings, device
        data = data_folder(out, number)
        self.train_images = cub.read_images(data, 'train.txt', CLASSES)
        self.val_images = cub.read_images(data, 'val.txt', CLASSES)
        self.crop = CentreCrop(settings.resize, settings.crop)
        self.whole = eval_transform(MASK_SIDE)
        self.inference = Inference(device, InferenceOptions(num_workers=1))

    def train_cam(self, name: str) -> None:
        """MFF-Net 1 as VARIANTS[name] says; its fused CAMs are evaluated, of the paper's network
        after each epoch."""
        from network import CamNet
        from utils.data.datasets import TrainImages
        from utils.localization.losses import classification_loss, distillation_loss

        folder, settings = run_folder(self.out, self.seed, name), self.settings
        if read_metrics(folder):
            return
        model = CamNet(CLASSES, settings.backbone, **VARIANTS[name])
        groups = [{'params': model.new_parameters()},
                  {'params': model.pretrained_parameters(), 'lr': 0.002}]

        def loss(network, batch):
            if model.auxiliary:
                return distillation_loss(*network(batch['image']), batch['label'])
            return classification_loss(network(batch['image']), batch['label'])

        self._train(model, TrainImages(self.train_images, self._transform(), self.seed), groups,
                    loss, folder, settings.cam_epochs, 0.02)
        if name == PAPER:
            self._evaluate_epochs(model, folder, settings.cam_epochs)
        self._evaluate(model, folder)

    def train_segmentations(self, name: str) -> None:
        """Pseudo masks of a trained variant, with and without the Gaussian prior, and MFF-Net 2
        trained on them."""
        from network import CamNet, load_checkpoint

        cam_folder = run_folder(self.out, self.seed, name)
        if not (cam_folder / 'masks.json').exists():
            model = CamNet(CLASSES, self.settings.backbone, pretrained='none', **VARIANTS[name])
            load_checkpoint(model, cam_folder / f'model-{self.settings.cam_epochs}')
            self._write_masks(model, cam_folder)
        for target, masks in (('SPOL', 'mask'), (WITHOUT_PRIOR, 'mask-without-prior')):
            self._train_segmentation(run_folder(self.out, self.seed, target), cam_folder / masks)

    def _write_masks(self, model, folder: Path) -> None:
        import numpy as np

        from utils.data.images import read_stored_mask
        from utils.outputs.results import RunFolder
        from utils.stages.make_masks import make_pseudo_masks, write_mask

        images = self.train_images
        make_pseudo_masks(model, images, self.whole, folder / 'mask', self.inference,
                          RunFolder(folder / 'masks'))
        for index in range(len(images)):
            stored = read_stored_mask(images.mask_path(folder / 'mask', index))
            cam_alone = np.zeros((*stored.shape[:2], 3), np.uint8)
            cam_alone[..., 0] = stored[..., 0]  # channel 1 is the prior
            write_mask(images.mask_path(folder / 'mask-without-prior', index), cam_alone)
        write_json(folder / 'masks.json', {'count': len(images)})

    def _train_segmentation(self, folder: Path, masks: Path) -> None:
        from network import SegNet
        from utils.data.datasets import TrainMasks
        from utils.localization.losses import segmentation_loss

        settings = self.settings
        if read_metrics(folder):
            return
        model = SegNet(settings.backbone)
        dataset = TrainMasks(self.train_images, self._transform(), self.seed, masks)

        def loss(network, batch):
            return segmentation_loss(network(batch['image']), batch['foreground'],
                                     batch['weight'])

        self._train(model, dataset, [{'params': model.parameters()}], loss, folder,
                    settings.seg_epochs, settings.seg_lr)
        self._evaluate_epochs(model, folder, settings.seg_epochs)
        self._evaluate(model, folder)

    def _transform(self):
        """The training transform of the stages."""
        import albumentations as A
        import cv2

        side = self.crop.side
        return A.Compose([A.Resize(self.crop.resize, self.crop.resize,
                                   interpolation=cv2.INTER_LINEAR),
                          A.RandomCrop(side, side), A.HorizontalFlip(p=0.5)])

    def _train(self, model, dataset, groups, loss, folder: Path, epochs: int, lr: float) -> None:
        from utils.engine.trainer import Trainer, TrainingOptions, every_epoch
        from utils.outputs.results import RunFolder

        options = TrainingOptions(epochs, self.settings.batch_size, lr, seed=self.seed,
                                  num_workers=0, resume='auto')
        trainer = Trainer(model, dataset, groups, loss, options, self.device, RunFolder(folder),
                          should_save=every_epoch)
        trainer.run()
        if trainer.stopped:
            raise KeyboardInterrupt

    def _evaluate_epochs(self, model, folder: Path, epochs: int) -> None:
        """GT-known at 0.2 after each epoch, for the learning curve; `model` ends as the last."""
        from network import load_checkpoint

        for epoch in range(1, epochs + 1):
            load_checkpoint(model, folder / f'model-{epoch}')
            if not read_metrics(folder / f'epoch-{epoch}'):
                self._evaluate(model, folder / f'epoch-{epoch}', sweep=False, metrics='paper')

    def _evaluate(self, model, folder: Path, sweep: bool = True, metrics: str = 'all') -> None:
        """Write the folder's results.json."""
        from network import CamNet
        from utils.outputs.results import RunFolder
        from utils.stages.evaluate import EvaluationOptions, evaluate_cams, evaluate_segmentation

        evaluate = evaluate_cams if isinstance(model, CamNet) else evaluate_segmentation
        evaluate(model, self.val_images, self.crop, self.inference, RunFolder(folder),
                 EvaluationOptions(sweep=sweep, metrics=metrics))


def read_metrics(folder: Path) -> dict:
    """The metrics in a folder's results.json, of the fused CAMs or of the segmentation; empty if
    there are none."""
    path = folder / 'results.json'
    record = json.loads(path.read_text()) if path.is_file() else {}
    record = record.get('evaluation', {}).get('fused', record)
    return record if 'strict' in record else {}


# ---------------------------------------------------------------- results


def write_results(out: Path, seeds: list[int]) -> None:
    """ablation.md, ablation.csv, ablation.png and curve.png of all seeds."""
    from utils.outputs.tables import write_csv

    rows = summaries({name: [metrics_of(read_metrics(run_folder(out, number, name)))
                             for number in seeds]
                      for name in [*VARIANTS, 'SPOL', WITHOUT_PRIOR]})
    tables = '\n\n'.join([
        f'Mean and standard deviation over {len(seeds)} seeds, strict count, in %. '
        'GT-known is at threshold 0.2.',
        markdown('fused stages (box of the CAM)',
                 {name: rows[name] for name in figure_1b_names()}),
        markdown('parts of SPOL', {
            'CAM without MCA': rows['without MCA'],
            'CAM without self-distillation': rows['without self-distillation'],
            'CAM, complete (multiply 345)': rows[PAPER],
            'segmentation, pseudo masks without the Gaussian prior': rows[WITHOUT_PRIOR],
            'segmentation: SPOL': rows['SPOL']})])
    write_text(out / 'ablation.md', tables + '\n')
    write_csv(out / 'ablation.csv', ('name', 'metric', 'mean', 'std'), csv_rows(rows))
    for name, content in (('ablation.png', figure_1b(rows)),
                          ('curve.png', learning_curve(curves(out, seeds)))):
        atomic_write(out / name, lambda file, content=content: file.write(content))
    print(f'\n{tables}\n\nwrote ablation.md, ablation.csv, ablation.png and curve.png to {out}')


def figure_1b_names() -> Iterator[str]:
    yield 'stage 5 alone'
    for fusion in FUSIONS:
        yield from (f'{fusion} {stages}' for stages in STAGES[1:])


def figure_1b(rows: dict) -> bytes:
    """Fig. 1(b): the figure over the number of stages fused, a line for each fusion; the content of
    a PNG file."""
    from matplotlib.figure import Figure

    from utils.outputs.drawing import png_of

    chart = Figure(figsize=(10, 4), layout='constrained')
    for axes, name in zip(chart.subplots(1, 2), ('GT-known', 'MaxBoxAccV2'), strict=True):
        plot(axes, {fusion: [rows['stage 5 alone'][name],
                             *(rows[f'{fusion} {stages}'][name] for stages in STAGES[1:])]
                    for fusion in FUSIONS})
        axes.set(xlabel='last stages fused', ylabel=f'{name}, %', xticks=range(1, 5))
    return png_of(chart)


def curves(out: Path, seeds: list[int]) -> dict[str, list[tuple[float, float]]]:
    """GT-known at 0.2 in percent after each epoch, mean and standard deviation."""
    result = {}
    for label, name in (('fused CAM', PAPER), ('SPOL', 'SPOL')):
        result[label] = points = []
        while runs := [read_metrics(run_folder(out, number, name) / f'epoch-{len(points) + 1}')
                       for number in seeds]:
            if not all(runs):
                break
            points.append(mean_and_std([100 * run['strict']['gt_known'] for run in runs]))
    return result


def learning_curve(points: dict[str, list[tuple[float, float]]]) -> bytes:
    """GT-known over the epochs of each stage; the content of a PNG file."""
    from matplotlib.figure import Figure

    from utils.outputs.drawing import png_of

    chart = Figure(figsize=(6, 4), layout='constrained')
    axes = chart.subplots()
    plot(axes, points)
    axes.set(xlabel='epochs of its stage', ylabel='GT-known at 0.2, %')
    return png_of(chart)


def plot(axes, lines: dict[str, list[tuple[float, float]]]) -> None:
    """A line of means with their standard deviations for each name, over 1, 2, ..."""
    for name, points in lines.items():
        means, deviations = zip(*points, strict=True)
        axes.errorbar(range(1, len(points) + 1), means, deviations, marker='o', capsize=3,
                      label=name)
    axes.grid(alpha=0.3)
    axes.legend()


if __name__ == '__main__':
    run(main)
