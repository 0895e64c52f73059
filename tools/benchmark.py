"""Images per second of the stages, beside those of the network alone; prints a Markdown table.

    python tools/benchmark.py    # on CUDA 16,384 images, on a CPU 160

Each stage script runs once, in a process of its own, on links to 64 drawn JPEGs of up to 500 x 500
pixels (a photograph of that size takes about twice as long to decode); the rate is that of the last
three quarters of the images. The network alone is the forward pass (seg/test: of the centre crop
and the whole image) or the training step, on a batch on the device, at the same precision. Weights
are random, but the projections of stages 3 and 4 are ones: the maps are then about as smooth as
those of a trained network, on which the time after the network depends.
"""

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

import torch
from tqdm import tqdm

from network import CamNet, SegNet
from utils.arguments import ROOT, Parser, positive_int, training_parser
from utils.device import available_cores, choose_device
from utils.errors import run
from utils.inference import Predictor
from utils.losses import distillation_loss, segmentation_loss
from utils.training import Sgd

CLASSES, PICTURES, SIDE, RESIZE, CROP = 20, 64, 500, 256, 224
TRAIN = ['--crop', CROP, '--epoch', 1, '--pretrained', 'none']
SEG_TEST = ['--crop', CROP, '--top1top5', 'none', '--show', 0]
# Stage -> flags of its script; seg/train reads the masks of cam/test.
STAGES = {'cam/train': TRAIN, 'cam/test': ['--show', 0], 'seg/train': TRAIN, 'seg/test': SEG_TEST,
          'seg/test-paper': [*SEG_TEST, '--metrics', 'paper']}


def main():
    parser, device = Parser(__doc__), choose_device('auto')
    batch_size, images = (64, 16384) if device.type == 'cuda' else (16, 160)
    parser.add_argument('--backbone', default='resnet50', help='resnet50 | timm/NAME | ...')
    parser.add_argument('--batch_size', type=positive_int, default=batch_size, help='of each step')
    parser.add_argument('--images', type=positive_int, default=images, help='of the list')
    args = parser.parse_args()
    print(f'{device.type}, {available_cores()} cores, PyTorch {torch.__version__}; '
          f'{args.backbone}, batch {args.batch_size}, {args.images} images\n\n'
          '| stage | images/s | network alone | ratio |\n| --- | --- | --- | --- |', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        args.folder, args.device = Path(folder), device
        make_images(args.folder, args.images)
        for stage in STAGES:
            with ProcessPoolExecutor(1, get_context('spawn')) as pool:
                rate, alone = pool.submit(measure, args, stage).result()
            print(f'| {stage} | {rate:.1f} | {alone:.1f} | {rate / alone:.2f} |', flush=True)


def make_images(folder: Path, count: int) -> None:
    """Draw PICTURES, and write a list of `count` images, in links to the folder of the pictures."""
    command = [ROOT / 'dataset' / 'make_mini.py', '--out', folder / 'drawn', '--classes', 4,
               '--train', PICTURES // 4, '--val', 1, '--size', SIDE]
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    drawn = (folder / 'drawn' / 'train.txt').read_text().splitlines()
    (folder / 'image').mkdir()
    with open(folder / 'list.txt', 'w') as file:
        for number in range(count):
            copy, place = divmod(number, PICTURES)
            if place == 0:
                (folder / 'image' / str(copy)).symlink_to(folder / 'drawn' / 'image')
            print(f'{copy}/{drawn[place]}', file=file)


def measure(args: Namespace, stage: str) -> tuple[float, float]:
    """Images per second of a stage's script, and of its network alone."""
    kind, mode = stage.removesuffix('-paper').split('/')
    torch.manual_seed(0)
    model = (CamNet(CLASSES, args.backbone, pretrained='none') if kind == 'cam'
             else SegNet(args.backbone, pretrained='none'))
    for shallow in '34':
        norm = model.mff.project[shallow][1]
        torch.nn.init.zeros_(norm.weight)
        torch.nn.init.ones_(norm.bias)
    snapshot = args.folder / f'{kind}-network'
    torch.save(model.state_dict(), snapshot)
    rate = script_rate(args, f'cub200-{kind}/{mode}.py', [
        '--savepath', args.folder / kind, '--snapshot', snapshot, *STAGES[stage]])
    step_of = training_step if mode == 'train' else forward_pass
    step = step_of(model, kind, args.device, args.batch_size)
    for count in (4, 4 if args.device.type == 'cpu' else 40):  # first: plans, memory
        begin = time.perf_counter()
        for _ in range(count):
            step()
        if args.device.type == 'cuda':
            torch.cuda.synchronize()
    alone = count * args.batch_size / (time.perf_counter() - begin)
    return rate, alone / 2 if stage == 'seg/test' else alone  # crop and whole image


def script_rate(args: Namespace, script: str, flags: list) -> float:
    flags = ['--datapath', args.folder, '--list', args.folder / 'list.txt', '--clsnum', CLASSES,
             '--backbone', args.backbone, '--batch_size', args.batch_size, '--resize', RESIZE,
             '--device', args.device, *flags]
    points, update = [(0, 0.0)], tqdm.update  # (images that are done, time)

    def timed_update(bar: tqdm, images: int) -> None:
        update(bar, images)
        points.append((points[-1][0] + images, time.perf_counter()))

    tqdm.update, sys.argv = timed_update, [str(ROOT / script), *map(str, flags)]
    with redirect_stdout(sys.stderr):
        runpy.run_path(sys.argv[0], run_name='__main__')
    first = next(point for point in points[1:] if point[0] >= args.images // 4)
    return (points[-1][0] - first[0]) / (points[-1][1] - first[1])


def forward_pass(model: CamNet | SegNet, kind: str, device: torch.device, size: int) -> Callable:
    labels = [torch.zeros(size, dtype=torch.long, device=device)] if kind == 'cam' else []
    predict = Predictor(model, device, method='class_cams' if labels else 'forward')
    side = RESIZE if labels else CROP
    images = torch.rand(size, side, side, 3, device=device)
    return lambda: predict(images, *labels)


def training_step(model: CamNet | SegNet, kind: str, device: torch.device, size: int) -> Callable:
    options = training_parser('.', '', data='', lr=1e-3, epoch=1, clsnum=CLASSES, batch_size=size,
                              resize=RESIZE, crop=CROP).parse_args([])
    sgd = Sgd(model, [{'params': model.parameters()}], options, device)
    images = torch.randn(size, 3, CROP, CROP).to(device, memory_format=torch.channels_last)
    labels = torch.zeros(size, dtype=torch.long, device=device)
    masks = torch.ones(size, CROP, CROP, dtype=torch.bool, device=device)

    def step() -> None:
        with sgd.precision.autocast():
            outputs = sgd.network(images)
            losses = (distillation_loss(*outputs, labels) if kind == 'cam'
                      else segmentation_loss(outputs, masks, masks))
        sgd.step(losses['total'])

    return step


if __name__ == '__main__':
    run(main)
