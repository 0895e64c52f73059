"""The stages' scripts beside the network alone, on JPEGs that are made here."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from network import CamNet, SegNet, build_classifier
from tools import plain
from tools.benchmarks.functions import (
    HEIGHT,
    INPUTS,
    RESIZE,
    WIDTH,
    box_and_metrics,
    milliseconds,
    smooth_map,
    transform,
)
from tools.benchmarks.monitor import Usage, watch
from utils.arguments import ROOT
from utils.data.images import read_image
from utils.data.lists import ImageList, read_cub_list
from utils.engine.checkpoint import save_checkpoint
from utils.engine.device import init_distributed_device
from utils.engine.inference import Inference, InferenceOptions
from utils.engine.precision import Precision
from utils.errors import InputError
from utils.localization.losses import classification_loss, distillation_loss, segmentation_loss
from utils.localization.metrics import BENCHMARK_SIDE
from utils.localization.pseudo_mask import fit_gaussians, pseudo_mask
from utils.stages.make_masks import write_mask

CLASSES, PICTURES = 20, 32
CROP = 224
MOST_IMAGES = 2048  # that the network alone is timed on


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, named as the flags of tools/benchmark.py."""

    backbone: str = 'resnet50'
    amp: str = 'auto'
    batch_size: int = 16
    num_workers: int | None = None
    compile: bool = False
    images: int = 192
    device: str = 'auto'


class Bench:
    """Data, checkpoints and the measurements on them, in a temporary folder."""

    def __init__(self, options: BenchOptions, folder: Path):
        self.options, self.folder = options, folder
        self.device = init_distributed_device(options.device, seed=0, test=True)
        self.inference = Inference(self.device, InferenceOptions(
            options.amp, options.batch_size, options.num_workers or 0, options.compile))
        self.short = max(options.batch_size, self.inference.chunk_size * self.inference.threads)
        self.ready = self.warm = False

    def prepare(self) -> None:
        """Make the images and their lists."""
        if self.ready:
            return
        self.ready = True
        count = self.short + self.options.images
        lines = make_pictures(self.folder, count)
        (self.folder / 'short.txt').write_text(''.join(lines[:self.short]))
        (self.folder / 'long.txt').write_text(''.join(lines))

    @property
    def arch(self) -> str:
        """The classifier: the backbone, and ResNet-50 in place of its deeper variants."""
        backbone = self.options.backbone
        return 'resnet50' if backbone in ('resnet101', 'resnet152') else backbone

    def images(self) -> ImageList:
        return read_cub_list(self.folder / 'long.txt', CLASSES, self.folder / 'image')

    def network(self, stage: str) -> torch.nn.Module:
        torch.manual_seed(0)
        if stage == 'cls':
            return build_classifier(self.arch, CLASSES, pretrained='none')
        model = (CamNet(CLASSES, self.options.backbone, pretrained='none') if stage == 'cam'
                 else SegNet(self.options.backbone, pretrained='none'))
        for shallow in '34':
            _, norm, _ = model.mff.project[shallow]
            torch.nn.init.zeros_(norm.weight)
            torch.nn.init.ones_(norm.bias)
        return model

    def compare_stages(self, stages: list[str]) -> None:
        self.prepare()
        if 'seg/train' in stages and 'cam/test' not in stages:
            self.run_script('cam/test', 'long')  # makes the masks
        print_header('stage', 'images/s', 'network alone', 'ratio', 'seconds to first batch',
                     'GPU idle', 'GPU MB',
                     'host MB, short and long list', 'ms per image on one core')
        for stage in stages:
            rate, idle, short, long = self.measure(stage)
            alone = self.step_rate(stage) if stage.endswith('train') else self.forward_rate(stage)
            first = short.seconds - max(0, self.short - self.options.batch_size) / rate
            print_row(stage, f'{rate:.2f}', f'{alone:.2f}', f'{rate / alone:.2f}', f'{first:.1f}',
                      '–' if idle is None else f'{idle:.0%}',
                      '–' if long.gpu_mb is None else f'{long.gpu_mb:.0f}',
                      f'{short.host_mb:.0f}, {long.host_mb:.0f}', self.split(stage))

    def measure(self, stage: str) -> tuple[float, float | None, Usage, Usage]:
        """Images/s of a stage's script, the share of that time in which the GPU did nothing, and
        what it used on the short and on the long list."""
        if self.options.compile or not self.warm:
            self.run_script(stage, 'short')  # files come into memory; what is compiled, is kept
            self.warm = True
        (short, before), (long, after) = (self.run_script(stage, name)
                                          for name in ('short', 'long'))
        idle = None
        if before.gpu_seconds is not None and after.gpu_seconds is not None:
            idle = max(0.0, 1 - (after.gpu_seconds - before.gpu_seconds) / (long - short))
        return self.options.images / (long - short), idle, before, after

    def run_script(self, stage: str, name: str) -> tuple[float, Usage]:
        """Run a stage's script on the short or the long list; seconds after its imports, and what
        it used of the machine."""
        kind, mode = stage.split('/')
        out = self.folder / 'out' / stage
        options, snapshot = self.options, self.folder / kind
        command = [sys.executable, ROOT / f'cub200-{kind}' / f'{mode}.py',
                   '--datapath', self.folder, '--savepath', out, '--list', f'{name}.txt',
                   '--clsnum', CLASSES, '--amp', options.amp, '--resize', RESIZE,
                   '--device', options.device, '--batch_size', options.batch_size,
                   *(('--arch', self.arch) if kind == 'cls' else ('--backbone', options.backbone)),
                   '--crop', 0 if stage == 'cam/test' else CROP]
        if kind != 'cls':
            command += ['--show', 0]
        if mode == 'train':
            command += ['--epoch', 1, '--pretrained', 'none']
        else:
            if not snapshot.exists():
                save_checkpoint(self.network(kind).state_dict(), snapshot)
            command += ['--snapshot', snapshot, '--compile', options.compile]
        if stage == 'seg/test':
            command += ['--top1top5', 'none']
        if options.num_workers is not None:
            command += ['--num_workers', options.num_workers]
        with open(self.folder / 'log', 'w') as log:
            process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
            usage = watch(process, self.device)
        if process.returncode:
            raise InputError(f'{stage} failed: {(self.folder / "log").read_text()}')
        results = json.loads((out / 'results.json').read_text())
        return results.get('training', results)['seconds'], usage

    def forward_rate(self, stage: str, amp: str | None = None, compile: bool | None = None
                     ) -> float:
        """Images/s of the network alone, on images that are on the device."""
        kind = stage.split('/')[0]
        side, passes = (RESIZE, 1) if kind == 'cam' else (CROP, 2 if kind == 'seg' else 1)
        given = self.inference.options
        inference = Inference(self.device, replace(
            given, amp=amp or given.amp, compile=given.compile if compile is None else compile))
        method = 'class_cams' if kind == 'cam' else 'forward'
        predictor = inference.predictor(self.network(kind), method)
        size, lanes = inference.chunk_size, inference.threads
        images = torch.rand((size, side, side, 3), device=self.device)
        labels = (torch.zeros(size, dtype=torch.long, device=self.device),)
        count = max(2 * lanes, min(self.options.images, MOST_IMAGES) // size)

        def forward(_) -> None:
            for _ in range(passes):
                predictor(images, *labels if kind == 'cam' else ())

        def loop(run: Callable) -> float:
            list(run(forward, range(lanes)))
            self.synchronize()
            begin = time.perf_counter()
            list(run(forward, range(count)))
            self.synchronize()
            return count * size / (time.perf_counter() - begin)

        return max(loop(inference.in_threads), loop(map))

    def synchronize(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def step_rate(self, stage: str, amp: str | None = None, compile: bool = False) -> float:
        """Images/s of forward, backward and SGD step on one batch on the device."""
        kind, memory = stage.split('/')[0], torch.channels_last
        model = self.network(kind).to(self.device, memory_format=memory).train()
        precision = Precision(amp or self.options.amp, self.device, model)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3, 0.9, weight_decay=1e-4,
                                    nesterov=True, fused=precision.allows_fused_sgd)
        size = self.options.batch_size
        images = torch.randn(size, 3, CROP, CROP).to(self.device, memory_format=memory)
        labels = torch.zeros(size, dtype=torch.long, device=self.device)
        masks = torch.ones(size, CROP, CROP, dtype=torch.bool, device=self.device)
        forward = torch.compile(model, dynamic=False) if compile else model

        def loss() -> torch.Tensor:
            if kind == 'cls':
                return classification_loss(forward(images), labels)['total']
            if kind == 'cam':
                return distillation_loss(*forward(images), labels)['total']
            return segmentation_loss(forward(images), masks, masks)['total']

        def steps(count: int) -> None:
            for _ in range(count):
                with precision.autocast():
                    total = loss()
                optimizer.zero_grad()
                precision.backward(total, optimizer)
                precision.step(optimizer)
            total.item()

        steps(2)
        count = max(2, min(self.options.images, MOST_IMAGES) // size)
        begin = time.perf_counter()
        steps(count)
        return count * size / (time.perf_counter() - begin)

    def split(self, stage: str) -> str:
        """What surrounds the network, each function alone."""
        paths = sorted((self.folder / 'image').iterdir())[:INPUTS]
        photos = [read_image(path) for path in paths]
        maps = [smooth_map(seed, 28) for seed in range(INPUTS)]
        wide = [smooth_map(seed, BENCHMARK_SIDE) for seed in range(INPUTS)]
        costs = {'decode': milliseconds(read_image, paths),
                 'transform': milliseconds(transform, photos)}
        if stage == 'cam/test':
            masks = [pseudo_mask(cam, (HEIGHT, WIDTH)) for cam in maps]
            costs['post-process'] = milliseconds(partial(pseudo_mask, size=(HEIGHT, WIDTH)), maps)
            costs['of it contours'] = milliseconds(
                lambda cam: list(fit_gaussians(cam)), [smooth_map(k, 256) for k in range(INPUTS)])
            costs['write'] = milliseconds(partial(write_mask, self.folder / 'one.png'), masks)
        if stage == 'seg/test':
            costs['post-process'] = milliseconds(box_and_metrics, wide)
        return ', '.join(f'{name} {cost:.1f}' for name, cost in costs.items())

    def compare_plain(self) -> None:
        """cam/test beside a plain program, both with their own readers and writers: elapsed time,
        and CPU time, which other programs on the machine disturb less."""
        self.prepare()
        self.run_script('cam/test', 'short')  # files come into memory; what is compiled, is kept
        short, long = (timed(partial(self.run_script, 'cam/test', name))
                       for name in ('short', 'long'))
        images = self.images()
        ours = (long - short) / self.options.images
        theirs = timed(partial(plain.make_pseudo_masks, self.network('cam'), images,
                               self.folder / 'plain')) / len(images)
        print_header('cam/test, ms per image', 'ours', 'plain, float32, image by image', 'ratio')
        for name, our, their in zip(('elapsed', 'CPU'), ours, theirs, strict=True):
            print_row(name, f'{1000 * our:.1f}', f'{1000 * their:.1f}', f'{their / our:.2f}')


def print_header(*names: str) -> None:
    """The head of a Markdown table."""
    print()
    print_row(*names)
    print_row(*['---'] * len(names))


def print_row(*cells: str) -> None:
    print('|', ' | '.join(cells), '|', flush=True)


def make_pictures(folder: Path, count: int) -> list[str]:
    """`count` JPEGs, few pictures under many names; the lines of their list."""
    mini = folder / 'mini'
    made = subprocess.run([str(part) for part in (
        sys.executable, ROOT / 'dataset' / 'make_mini.py', '--out', mini, '--classes', 4, '--train',
        PICTURES // 4, '--val', 1, '--size', WIDTH)], capture_output=True, text=True, check=False)
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


def timed(function: Callable) -> np.ndarray:
    """Seconds that a call takes: (elapsed, CPU), the latter of this and of ended processes."""
    def now() -> np.ndarray:
        *cpu, elapsed = os.times()
        return np.array([elapsed, sum(cpu)])

    begin = now()
    function()
    return now() - begin
