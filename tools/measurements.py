"""What the benchmark measures: stages beside the bare network, and functions beside plain code."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from network import CamNet, SegNet, build_classifier
from tools import plain
from utils.arguments import ROOT
from utils.data.images import read_image
from utils.data.lists import read_cub_list
from utils.data.transforms import exact_transform
from utils.engine.checkpoint import save_checkpoint
from utils.engine.device import choose_device
from utils.engine.inference import Inference, InferenceOptions, Predictor
from utils.engine.normalize import Normalize
from utils.engine.precision import Precision
from utils.errors import InputError
from utils.localization.boxes import largest_box
from utils.localization.losses import classification_loss, distillation_loss, segmentation_loss
from utils.localization.metrics import SIDE, normalise_map, pixel_counts, threshold_ious
from utils.localization.pseudo_mask import gaussian_prior, pseudo_mask
from utils.stages.make_masks import write_mask

CLASSES, PICTURES = 20, 32
HEIGHT, WIDTH = 375, 500
RESIZE, CROP = 256, 224
DELTAS = np.array([0.3, 0.5, 0.7])
TRUE_BOX = (40, 50, 160, 170)
REPEATS, INPUTS = 5, 8


class Bench:
    """Data, checkpoints and the measurements on them, in a temporary folder."""

    def __init__(self, args, folder: Path):
        self.args, self.folder = args, folder
        self.device = choose_device(args.device)
        self.inference = Inference(self.device, InferenceOptions(
            args.amp, args.batch_size, args.num_workers or 0, args.compile))
        self.short = max(args.batch_size, self.inference.part_size * self.inference.threads)
        self.ready = False

    def prepare(self) -> None:
        if self.ready:
            return
        self.ready = True
        lines = make_pictures(self.folder, self.short + self.args.images, self.args.photos)
        (self.folder / 'short.txt').write_text(''.join(lines[:self.short]))
        (self.folder / 'long.txt').write_text(''.join(lines))
        asked = {task.partition('/')[0] for task in self.args.tasks} & {'cls', 'seg'}
        for stage in ('cam', *asked):
            save_checkpoint(self.network(stage).state_dict(), self.folder / stage)

    def network(self, stage: str) -> torch.nn.Module:
        torch.manual_seed(0)
        if stage == 'cls':
            return build_classifier(self.args.backbone, CLASSES, pretrained='none')
        model = (CamNet(CLASSES, self.args.backbone, pretrained='none') if stage == 'cam'
                 else SegNet(self.args.backbone, pretrained='none'))
        for shallow in '34':
            _, norm, _ = model.mff.project[shallow]
            torch.nn.init.zeros_(norm.weight)
            torch.nn.init.ones_(norm.bias)
        return model

    def compare_stages(self, stages: list[str]) -> None:
        self.prepare()
        if 'seg/train' in stages and 'cam/test' not in stages:
            self.run_script('cam/test', 'long')  # makes the masks
        print(f'\n{"stage":10} {"images/s":>9} {"bare":>7} {"ratio":>6}   peak MB, short and long '
              'list; ms an image on one core')
        for stage in stages:
            rate, low, high = self.measure(stage)
            bare = self.bare_step(stage) if stage.endswith('train') else self.bare_test(stage)
            print(f'{stage:10} {rate:9.2f} {bare:7.2f} {rate / bare:6.2f}   {low:.0f} {high:.0f}; '
                  f'{self.split(stage)}', flush=True)

    def measure(self, stage: str) -> tuple[float, float, float]:
        """Images/s of a stage's script, and its peak memory on the short and on the long list."""
        self.run_script(stage, 'short')  # files come into memory; what is compiled, is kept
        (short, low), (long, high) = (self.run_script(stage, name) for name in ('short', 'long'))
        return self.args.images / (long - short), low, high

    def run_script(self, stage: str, name: str) -> tuple[float, float]:
        """Run a stage's script on the short or the long list; seconds after its imports, and its
        peak memory in MB."""
        kind, mode = stage.split('/')
        out = self.folder / 'out' / stage
        command = [sys.executable, ROOT / f'cub200-{kind}' / f'{mode}.py',
                   '--datapath', self.folder, '--savepath', out, '--list', f'{name}.txt',
                   '--clsnum', CLASSES, '--amp', self.args.amp, '--resize', RESIZE,
                   '--device', self.args.device, '--batch_size', self.args.batch_size,
                   '--arch' if kind == 'cls' else '--backbone', self.args.backbone,
                   '--crop', 0 if stage == 'cam/test' else CROP, '--show', 0]
        if mode == 'train':
            command += ['--epoch', 1, '--pretrained', 'none']
        else:
            command += ['--snapshot', self.folder / kind, '--compile', self.args.compile]
        if stage == 'seg/test':
            command += ['--top1top5', 'none']
        if self.args.num_workers is not None:
            command += ['--num_workers', self.args.num_workers]
        with open(self.folder / 'log', 'w') as log:
            process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
            peak = peak_memory(process)
        if process.returncode:
            raise InputError(f'{stage} failed: {(self.folder / "log").read_text()}')
        results = json.loads((out / 'results.json').read_text())
        return results.get('training', results)['seconds'], peak

    def bare_test(self, stage: str) -> float:
        """Images/s of the network alone."""
        kind = stage.split('/')[0]
        side, passes = (RESIZE, 1) if kind == 'cam' else (CROP, 2 if kind == 'seg' else 1)
        predictor = self.predictor(kind)
        size, lanes = self.inference.part_size, self.inference.threads
        images = torch.rand((size, side, side, 3))
        labels = (torch.zeros(size, dtype=torch.long),) if kind == 'cam' else ()
        count = max(2 * lanes, self.args.images // size)

        def forward(_) -> None:
            for _ in range(passes):
                predictor(images, *labels)

        def loop(run: Callable) -> float:
            list(run(forward, range(lanes)))
            self.synchronize()
            begin = time.perf_counter()
            list(run(forward, range(count)))
            self.synchronize()
            return count * size / (time.perf_counter() - begin)

        return max(loop(self.inference.in_threads), loop(map))

    def synchronize(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def predictor(self, kind: str) -> Predictor:
        method = 'class_cams' if kind == 'cam' else 'forward'
        return self.inference.predictor(self.network(kind), method)

    def bare_step(self, stage: str, amp: str | None = None, channels_last: bool = True) -> float:
        """Images/s of forward, backward and SGD step on one batch in memory."""
        kind = stage.split('/')[0]
        precision = Precision(amp or self.args.amp, self.device)
        memory = torch.channels_last if channels_last else torch.contiguous_format
        model = self.network(kind).to(self.device, memory_format=memory).train()
        optimizer = torch.optim.SGD(model.parameters(), 1e-3, 0.9, weight_decay=1e-4,
                                    nesterov=True, fused=precision.allows_fused_sgd)
        size = self.args.batch_size
        images = torch.randn(size, 3, CROP, CROP).to(self.device, memory_format=memory)
        labels = torch.zeros(size, dtype=torch.long, device=self.device)
        masks = torch.ones(size, CROP, CROP, dtype=torch.bool, device=self.device)

        def loss() -> torch.Tensor:
            if kind == 'cls':
                return classification_loss(model(images), labels)['total']
            if kind == 'cam':
                return distillation_loss(*model(images), labels)['total']
            return segmentation_loss(model(images), masks, masks)['total']

        def steps(count: int) -> None:
            for _ in range(count):
                with precision.autocast():
                    total = loss()
                precision.step(total, optimizer)
            total.item()

        steps(2)
        count = max(2, self.args.images // size)
        begin = time.perf_counter()
        steps(count)
        return count * size / (time.perf_counter() - begin)

    def split(self, stage: str) -> str:
        """What surrounds the network, each function alone."""
        paths = sorted((self.folder / 'image').iterdir())[:INPUTS]
        photos = [read_image(path) for path in paths]
        maps = [smooth_map(seed, 28) for seed in range(INPUTS)]
        wide = [smooth_map(seed, SIDE) for seed in range(INPUTS)]
        costs = {'decode': milliseconds(read_image, paths),
                 'transform': milliseconds(transform, photos)}
        if stage == 'cam/test':
            masks = [pseudo_mask(cam, (HEIGHT, WIDTH)) for cam in maps]
            costs['post-process'] = milliseconds(partial(pseudo_mask, size=(HEIGHT, WIDTH)), maps)
            costs['write'] = milliseconds(partial(write_mask, self.folder / 'one.png'), masks)
        if stage == 'seg/test':
            costs['post-process'] = milliseconds(box_and_metrics, wide)
        return ', '.join(f'{name} {cost:.1f}' for name, cost in costs.items())

    def compare_plain(self) -> None:
        """cam/test beside a plain program, both with their own readers and writers."""
        self.prepare()
        ours, *_ = self.measure('cam/test')
        images = read_cub_list(self.folder / 'long.txt', CLASSES, self.folder / 'image')
        model = self.network('cam')
        begin = time.perf_counter()
        plain.make_pseudo_masks(model, images, self.folder / 'plain')
        theirs = len(images) / (time.perf_counter() - begin)
        print(f'\ncam/test   {ours:.2f} images/s; plain, on the CPU in float32, image by '
              f'image '
              f'{theirs:.2f}: {ours / theirs:.2f} x', flush=True)

    def compare_training(self) -> None:
        self.prepare()
        name = Precision('auto', self.device).name
        half = self.bare_step('cam/train', 'auto', channels_last=True)
        full = self.bare_step('cam/train', 'off', channels_last=False)
        print(f'\ntraining   {name}, channels_last {half:.2f} images/s; float32, contiguous '
              f'{full:.2f}: {half / full:.2f} x', flush=True)


def peak_memory(process: subprocess.Popen) -> float:
    """Wait for a process; its largest resident memory in MB, 0 where there is no /proc."""
    peak = 0.0
    while process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            status = Path(f'/proc/{process.pid}/status').read_text()
            peak = float(status.split('VmHWM:')[1].split()[0]) / 1024
        time.sleep(0.05)
    return peak


def make_pictures(folder: Path, count: int, photos: Path | None) -> list[str]:
    """`count` JPEGs, few pictures under many names; the lines of their list."""
    mini = folder / 'mini'
    source = ['--cutouts', photos / 'cutouts', '--backgrounds', photos / 'backgrounds'
              ] if photos else []
    made = subprocess.run([str(part) for part in (
        sys.executable, ROOT / 'dataset' / 'make_mini.py', '--out', mini, '--classes', 4, '--train',
        PICTURES // 4, '--val', 1, '--size', WIDTH, *source)], capture_output=True, text=True,
        check=False)
    if made.returncode:
        raise InputError(made.stderr.strip())
    (folder / 'image').mkdir()
    lines = []
    originals = sorted((mini / 'image').rglob('*.jpg'))[:PICTURES]
    for index in range(count):
        path = folder / 'image' / f'{index:05}.jpg'
        if index < len(originals):
            photo = cv2.resize(cv2.imread(str(originals[index])), (WIDTH, HEIGHT))
            cv2.imwrite(str(path), photo, (cv2.IMWRITE_JPEG_QUALITY, 90))
        else:
            os.link(folder / 'image' / f'{index % len(originals):05}.jpg', path)
        lines.append(f'{path.name},{index % CLASSES},100 100 400 300\n')
    return lines


def milliseconds(function: Callable, inputs: list) -> float:
    """An image; the median over repeats."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        for x in inputs:
            function(x)
        times.append((time.perf_counter() - begin) / len(inputs))
    return 1000 * float(np.median(times))


def smooth_map(seed: int, side: int) -> np.ndarray:
    """Blobs as those of a CAM, side x side float32, from 0 to 1."""
    values = cv2.resize(np.random.default_rng(seed).random((7, 7), np.float32) ** 2, (side, side),
                        interpolation=cv2.INTER_CUBIC)
    return normalise_map(values).astype(np.float32)


EXACT = exact_transform(RESIZE)
NORMALIZE = Normalize(plain.MEAN.tolist(), plain.STD.tolist())


def transform(photo: np.ndarray) -> np.ndarray:
    view = torch.from_numpy(EXACT(image=photo)['image'])[None]
    return NORMALIZE(view)[0].permute(1, 2, 0).numpy()


def max_box_acc(score_map: np.ndarray) -> np.ndarray:
    _, every = threshold_ious(score_map, np.array([TRUE_BOX]), (SIDE, SIDE))
    return every >= DELTAS[:, None]


def box_and_metrics(probability: np.ndarray) -> None:
    """What seg/test does with an image's maps."""
    largest_box(probability, 0.2)
    max_box_acc(probability)
    pixel_counts(probability, probability > 0.5)


def compare_functions() -> bool:
    """The hot functions beside plain ones, on one core; whether all outputs agree."""
    torch.set_num_threads(1)
    np.ones(3 * 2**20)  # as tensors do in the stages: freed, it lets the C library keep memory
    cams = [smooth_map(seed, 256) for seed in range(INPUTS)]
    photos = [(255 * np.dstack([smooth_map(3 * seed + channel, WIDTH)[:HEIGHT]
                                for channel in range(3)])).astype(np.uint8)
              for seed in range(INPUTS)]
    maps = [smooth_map(seed, SIDE) for seed in range(INPUTS)]
    masks = [pseudo_mask(smooth_map(seed, 28), (HEIGHT, WIDTH)) for seed in range(INPUTS)]
    print()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'mask.png'
        return all([
            compare('Gaussian prior', gaussian_prior, plain.gaussian_prior, cams, 1 / 255),
            compare('pseudo mask', partial(pseudo_mask, size=(HEIGHT, WIDTH)),
                    partial(plain.pseudo_mask, size=(HEIGHT, WIDTH)),
                    [smooth_map(seed, 28) for seed in range(INPUTS)], 1),
            compare('transform', transform, plain.transform, photos, 1e-4),
            compare('box extraction', partial(largest_box, threshold=0.2),
                    partial(plain.largest_box, threshold=0.2), maps, 0),
            compare('PNG write', partial(written, path, write_mask),
                    partial(written, path, plain.write_png), masks, 0),
            compare('MaxBoxAccV2', max_box_acc,
                    partial(plain.max_box_acc, true_box=TRUE_BOX, deltas=DELTAS), maps, 0),
        ])


def written(path: Path, write: Callable, image: np.ndarray) -> np.ndarray:
    """What a reader finds after `write`."""
    write(path, image)
    return cv2.imread(str(path))


def compare(name: str, fast: Callable, slow: Callable, inputs: list, tolerance: float) -> bool:
    """Print both times, their ratio and the largest difference; whether that is tolerable."""
    difference = max(float(np.abs(np.asarray(fast(x), float) - np.asarray(slow(x), float)).max())
                     for x in inputs)
    ours, theirs = milliseconds(fast, inputs), milliseconds(slow, inputs)
    equal = difference <= tolerance
    print(f'{name:15} {ours:8.2f} ms, plain {theirs:8.2f} ms: {theirs / ours:5.1f} x; largest '
          f'difference {difference:.2g}{"" if equal else ": TOO LARGE"}', flush=True)
    return equal

