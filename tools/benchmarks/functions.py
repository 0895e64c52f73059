"""The hot functions beside plain code, on one core."""

import tempfile
import time
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from tools import plain
from tools.judge.ground_truth import GroundTruth
from tools.judge.measuring import measure as evaluate_map
from utils.engine.normalize import Normalize
from utils.localization.boxes import CentreCrop, largest_box
from utils.localization.metrics import (
    BENCHMARK_SIDE,
    IOU_UNITS,
    LEVEL_OF_STEP,
    normalise_map,
    pixel_counts,
    threshold_ious,
)
from utils.localization.pseudo_mask import gaussian_prior, pseudo_mask
from utils.stages.make_masks import write_mask

HEIGHT, WIDTH = 375, 500
RESIZE = 256
DELTAS = np.array([0.3, 0.5, 0.7])
TRUE_BOX = (40, 50, 160, 170)
REPEATS, INPUTS = 5, 8


def milliseconds(function: Callable, inputs: list) -> float:
    """CPU time per image, with one thread of PyTorch; the median over repeats."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    times = timeit.repeat('for x in inputs: function(x)', timer=time.process_time,
                          repeat=REPEATS, number=1, globals=locals())
    torch.set_num_threads(before)
    return 1000 * float(np.median(times)) / len(inputs)


def smooth_map(seed: int, side: int) -> np.ndarray:
    """Blobs as those of a CAM, side x side float32, from 0 to 1."""
    values = cv2.resize(np.random.default_rng(seed).random((7, 7), np.float32) ** 2, (side, side),
                        interpolation=cv2.INTER_CUBIC)
    return normalise_map(values).astype(np.float32)


EXACT = CentreCrop(RESIZE)
NORMALIZE = Normalize(plain.MEAN.tolist(), plain.STD.tolist())


def transform(photo: np.ndarray) -> np.ndarray:
    view = torch.from_numpy(EXACT.view(photo))[None]
    return NORMALIZE(view)[0].permute(1, 2, 0).numpy()


def max_box_acc(score_map: np.ndarray) -> np.ndarray:
    _, every = threshold_ious(score_map, np.array([TRUE_BOX]), (BENCHMARK_SIDE, BENCHMARK_SIDE))
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
    maps = [smooth_map(seed, BENCHMARK_SIDE) for seed in range(INPUTS)]
    masks = [pseudo_mask(smooth_map(seed, 28), (HEIGHT, WIDTH)) for seed in range(INPUTS)]
    print()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'mask.png'
        truths = [GroundTruth(str(number), np.array([TRUE_BOX], float), (BENCHMARK_SIDE,) * 2)
                  for number in range(INPUTS)]
        for truth, score_map in zip(truths, maps, strict=True):
            np.save(path.with_name(f'{truth.name}.npy'), score_map)
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
            compare('map of a file', partial(evaluated, path.parent),
                    lambda truth: plain.max_box_acc(np.load(path.with_name(f'{truth.name}.npy')),
                                                    TRUE_BOX, DELTAS), truths, 0),
        ])


def evaluated(folder: Path, truth: GroundTruth) -> np.ndarray:
    """What tools/evaluate_maps.py does with a map."""
    (_, every), _ = evaluate_map(folder, truth)
    return every[LEVEL_OF_STEP] >= np.round(IOU_UNITS * DELTAS[:, None])


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

