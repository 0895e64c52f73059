"""What a device can do: the network alone, and the readers that feed it."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import albumentations as A
import cv2
import numpy as np
import torch

from network.errors import first_line
from tools.benchmarks.functions import RESIZE
from tools.benchmarks.stages import CROP, Bench, print_header, print_row
from utils.data.datasets import EvalImages, TrainImages
from utils.data.lists import ImageList
from utils.data.loader import EpochSampler, TrainLoader
from utils.engine.device import available_cores, configured
from utils.engine.inference import Inference, Predictor
from utils.engine.precision import Precision, supports_bf16
from utils.errors import InputError
from utils.localization.boxes import CentreCrop
from utils.outputs.bad_images import BadImages
from utils.stages.make_masks import MaskFolder

MOST_READERS = 32
BATCHES_OF_A_READER = 8


class Variant(NamedTuple):
    """A way to run a network: `amp` and `tf32` as the flags of the stages."""

    name: str
    amp: str
    tf32: bool = False
    compile: bool = False


def variants_of(device: torch.device) -> list[Variant]:
    """The precisions of the device, and the one that `--amp auto` chooses compiled."""
    on_cuda, auto = device.type == 'cuda', Precision('auto', device).name
    variants = [Variant('float32', 'off')]
    if on_cuda:
        variants.append(Variant('TF32', 'off', tf32=True))
    if supports_bf16(device):
        variants.append(Variant('bf16', 'bf16'))
    if on_cuda:
        variants.append(Variant('fp16', 'fp16'))
    return [*variants, Variant(f'{"float32" if auto == "off" else auto}, compiled', auto,
                               compile=True)]


def compare_variants(bench: Bench, variants: list[Variant] | None = None) -> None:
    """The network alone: a forward pass of cam/test and a step of cam/train."""
    print_header('network alone', 'variant', 'images/s', 'to float32', 'GPU MB')
    for stage, measure in (('cam/test', bench.forward_rate), ('cam/train', bench.step_rate)):
        first = None
        for variant in variants or variants_of(bench.device):
            try:
                rate, memory = _measure_variant(bench, measure, stage, variant)
            except (InputError, RuntimeError) as error:  # no compiler here, or out of memory
                print_row(stage, variant.name, '–', '–', first_line(error))
                continue
            first = first or rate
            print_row(stage, variant.name, f'{rate:.2f}', f'{rate / first:.2f}', memory)


def _measure_variant(bench: Bench, measure: Callable[..., float], stage: str, variant: Variant
                     ) -> tuple[float, str]:
    """Images/s, and the peak of the memory that PyTorch allocated on a GPU."""
    on_cuda = bench.device.type == 'cuda'
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    configured(bench.device, variant.tf32)
    try:
        rate = measure(stage, amp=variant.amp, compile=variant.compile)
    finally:
        configured(bench.device)
        torch.compiler.reset()
    return rate, f'{torch.cuda.max_memory_allocated() / 2**20:.0f}' if on_cuda else '–'


def compare_readers(bench: Bench, counts: list[int] | None = None) -> None:
    """How many threads keep the network of cam/test busy, and how many processes that of
    cam/train."""
    bench.prepare()
    cores = available_cores()
    counts = counts or [2**k for k in range(min(MOST_READERS, 2 * cores).bit_length())]
    test, train = bench.forward_rate('cam/test'), bench.step_rate('cam/train')
    predict = bench.inference.predictor(bench.network('cam'), 'class_cams')
    print_header('readers', 'cam/test images/s', 'of the network alone',
                 'cam/train images read/s', 'of the network alone')
    for count in counts:
        masks = _masks_per_second(bench, predict, count)
        cells = [str(count), f'{masks:.2f}', f'{masks / test:.2f}', '–', '–']
        if count <= cores:
            read = _read_per_second(bench, count)
            cells[3:] = f'{read:.2f}', f'{read / train:.2f}'
        print_row(*cells)


def _masks_per_second(bench: Bench, predict: Predictor, threads: int) -> float:
    """From the files to the masks, as cam/test."""
    inference = Inference(bench.device, replace(bench.inference.options, num_workers=threads))
    folder = bench.folder / 'swept'

    def seconds(count: int) -> float:
        images = _repeated(bench.images(), count)
        masks = MaskFolder(folder, images, predict)
        begin = time.perf_counter()
        data = EvalImages(images, image=CentreCrop(RESIZE))
        deque(inference.map(data, masks.write, f'{threads} readers', BadImages(images, folder)))
        return time.perf_counter() - begin

    parts = threads * inference.chunk_size
    seconds(parts)  # memory is allocated
    return BATCHES_OF_A_READER * parts / seconds(BATCHES_OF_A_READER * parts)


def _read_per_second(bench: Bench, workers: int) -> float:
    """Images/s of the training's readers alone, from a batch for each of them on."""
    size = bench.options.batch_size
    images = _repeated(bench.images(), (BATCHES_OF_A_READER + 1) * workers * size)
    transform = A.Compose([A.Resize(RESIZE, RESIZE, interpolation=cv2.INTER_LINEAR),
                           A.RandomCrop(CROP, CROP), A.HorizontalFlip(p=0.5)])
    sampler = EpochSampler(len(images), size, seed=0)
    batches = iter(TrainLoader(TrainImages(images, transform, seed=0), sampler, workers,
                               pin_memory=bench.device.type == 'cuda'))
    for _ in range(workers):
        next(batches)
    begin = time.perf_counter()
    count = sum(len(batch['image']) for batch in batches)
    return count / (time.perf_counter() - begin)


def _repeated(images: ImageList, count: int) -> ImageList:
    """A list of `count` images."""
    indices = np.arange(count) % len(images)
    return ImageList(images.names[indices], images.labels[indices], None, images.folder)
