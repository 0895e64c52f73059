"""Images per second of the stages, beside those of the network alone; prints a Markdown table.

    python tools/benchmark.py                        16,384 images on CUDA, 160 on a CPU
    python tools/benchmark.py cam/train cam/test     some of the stages

Each stage script runs once, in a process of its own, on hard links of 64 drawn JPEGs of 500 x 375
pixels (a photograph of that size takes about twice as long to decode). Its rate is measured from
batch 40 (on few images: after a quarter of them) to the end, so without start-up. The network alone
is the forward pass, or the training step, on a batch on the device, at the same precision and batch
size; for seg/test, which sees the centre crop and the whole image, two passes. Weights are random,
but the projections of stages 3 and 4 are ones everywhere: the maps are then about as smooth as
those of a trained network, on which the time after the network depends.
"""

import os
import runpy
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import cv2
import torch

from network import CamNet, SegNet
from utils.arguments import ROOT, Parser, positive_int, training_parser
from utils.device import available_cores, choose_device
from utils.errors import run
from utils.inference import CPU_CHUNK, Predictor, in_threads
from utils.losses import distillation_loss, segmentation_loss
from utils.progress import Progress
from utils.training import Sgd

CLASSES, PICTURES, SIZE, RESIZE, CROP = 20, 64, (500, 375), 256, 224
STAGES = {  # name -> flags of its script
    'cam/train': ['--epoch', 1, '--crop', CROP],
    'cam/test': [],
    'seg/train': ['--epoch', 1, '--crop', CROP],
    'seg/test': ['--crop', CROP, '--top1top5', 'none'],
    'seg/test-paper': ['--crop', CROP, '--top1top5', 'none', '--metrics', 'paper'],
}
FIRST_BATCH = 40


def main():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('stages', nargs='*', metavar='stage', help=f'of {", ".join(STAGES)} (default: all)')
    add('--backbone', default='resnet50', help='resnet50 | resnet101 | resnet152 | timm/NAME')
    add('--batch_size', type=positive_int, help='default: 16, on CUDA 64')
    add('--images', type=positive_int, help='default: 160, on CUDA 16384')
    add('--device', default='auto', help='auto | cpu | cuda')
    args = parser.parse_args()
    if unknown := set(args.stages) - set(STAGES):
        parser.error(f'no stage {min(unknown)}: choose from {", ".join(STAGES)}')
    args.device = choose_device(args.device).type
    on_cuda = args.device == 'cuda'
    args.batch_size = args.batch_size or (64 if on_cuda else 16)
    args.images = args.images or (16384 if on_cuda else 160)
    print(f'{torch.cuda.get_device_name() if on_cuda else "CPU"}, {available_cores()} cores, '
          f'PyTorch {torch.__version__}; {args.backbone}, batch {args.batch_size}, {args.images} '
          'images\n\n| stage | images/s | network alone | ratio |\n| --- | --- | --- | --- |',
          flush=True)
    stages = args.stages or list(STAGES)
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        make_images(args.folder, args.images)
        if 'seg/train' in stages and 'cam/test' not in stages:
            in_a_process(measure_stage, args, 'cam/test')  # makes the masks
        for stage in stages:
            rate = in_a_process(measure_stage, args, stage)
            alone = in_a_process(measure_network, args, stage)
            print(f'| {stage} | {rate:.1f} | {alone:.1f} | {rate / alone:.2f} |', flush=True)


def in_a_process(function: Callable, args: Namespace, stage: str) -> float:
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        return pool.submit(function, args, stage).result()


def make_images(folder: Path, count: int) -> None:
    """Draw PICTURES, link them until there are `count`, and write their list."""
    command = [ROOT / 'dataset' / 'make_mini.py', '--out', folder / 'drawn', '--classes', 4,
               '--train', PICTURES // 4, '--val', 1, '--size', SIZE[0]]
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    originals = sorted((folder / 'drawn' / 'image').rglob('*_train_*.jpg'))
    for path in originals:
        picture = cv2.resize(cv2.imread(str(path)), SIZE, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(path), picture, (cv2.IMWRITE_JPEG_QUALITY, 90))
    (folder / 'image').mkdir()
    box = f'0 0 {SIZE[0]} {SIZE[1] // 2}'
    with open(folder / 'list.txt', 'w') as file:
        for number in range(count):
            os.link(originals[number % PICTURES], folder / 'image' / f'{number:05}.jpg')
            print(f'{number:05}.jpg,{number % CLASSES},{box}', file=file)


def measure_stage(args: Namespace, stage: str) -> float:
    """Run a stage's script; its images per second."""
    kind, mode = stage.removesuffix('-paper').split('/')
    script = ROOT / f'cub200-{kind}' / f'{mode}.py'
    flags = ['--datapath', args.folder, '--list', args.folder / 'list.txt', '--savepath',
             args.folder / kind, '--clsnum', CLASSES, '--backbone', args.backbone, '--batch_size',
             args.batch_size, '--resize', RESIZE, '--device', args.device, '--show', 0,
             *STAGES[stage]]
    if mode == 'train':
        flags += ['--pretrained', 'none']
    else:
        snapshot = args.folder / f'{kind}-network'
        torch.save(build(kind, args.backbone).state_dict(), snapshot)
        flags += ['--snapshot', snapshot]
    points, update = [], Progress.update  # (time, images that are done)

    def timed_update(self: Progress, *given: int, **metrics: float) -> None:
        update(self, *given, **metrics)
        points.append((time.perf_counter(), self.done))

    Progress.update, sys.argv = timed_update, [str(script), *map(str, flags)]
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere):
        runpy.run_path(str(script), run_name='__main__')
    least = min(FIRST_BATCH * args.batch_size, args.images // 4)
    begin, before = next(point for point in points if point[1] >= least)
    end, after = points[-1]
    return (after - before) / (end - begin)


def build(kind: str, backbone: str) -> CamNet | SegNet:
    torch.manual_seed(0)
    model = (CamNet(CLASSES, backbone, pretrained='none') if kind == 'cam'
             else SegNet(backbone, pretrained='none'))
    for shallow in '34':
        norm = model.mff.project[shallow][1]
        torch.nn.init.zeros_(norm.weight)
        torch.nn.init.ones_(norm.bias)
    return model


def measure_network(args: Namespace, stage: str) -> float:
    """Images per second of a stage's network alone."""
    kind, mode = stage.removesuffix('-paper').split('/')
    on_cuda, training = args.device == 'cuda', mode == 'train'
    size = args.batch_size if on_cuda or training else CPU_CHUNK
    make = training_step if training else forward_pass
    step = make(build(kind, args.backbone), kind, torch.device(args.device), size)
    steps, run_all = range(40 if on_cuda else 4), map if on_cuda or training else in_threads
    list(run_all(step, steps))  # plans of the convolutions, memory
    begin = time.perf_counter()
    list(run_all(step, steps))
    if on_cuda:
        torch.cuda.synchronize()
    rate = len(steps) * size / (time.perf_counter() - begin)
    return rate / 2 if stage == 'seg/test' else rate  # crop and whole image


def forward_pass(model: CamNet | SegNet, kind: str, device: torch.device, size: int) -> Callable:
    labels = [torch.zeros(size, dtype=torch.long, device=device)] if kind == 'cam' else []
    predict = Predictor(model, device, method='class_cams' if labels else 'forward')
    side = RESIZE if labels else CROP
    images = torch.rand(size, side, side, 3, device=device)
    return lambda _: predict(images, *labels)


def training_step(model: CamNet | SegNet, kind: str, device: torch.device, size: int) -> Callable:
    options = training_parser('.', '', data='', clsnum=CLASSES, batch_size=size, resize=RESIZE,
                              crop=CROP, lr=1e-3, epoch=1).parse_args([])
    sgd = Sgd(model, [{'params': model.parameters()}], options, device)
    images = torch.randn(size, 3, CROP, CROP).to(device, memory_format=torch.channels_last)
    labels = torch.zeros(size, dtype=torch.long, device=device)
    masks = torch.ones(size, CROP, CROP, dtype=torch.bool, device=device)

    def step(_: int) -> None:
        with sgd.precision.autocast():
            outputs = sgd.network(images)
            losses = (distillation_loss(*outputs, labels) if kind == 'cam'
                      else segmentation_loss(outputs, masks, masks))
        sgd.step(losses['total'])

    return step


if __name__ == '__main__':
    run(main)
