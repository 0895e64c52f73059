"""The hot functions, each beside a plain implementation in the same run, outputs compared.

    python tools/benchmark.py

Prints milliseconds an image and the ratio; where outputs differ by more than they may, it says so
and exits with 1.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch

from utils.arguments import Parser
from utils.boxes import contours_of
from utils.errors import run
from utils.images import normalise, resize
from utils.metrics import SIDE, THRESHOLDS, MaxBoxAcc, normalise_map
from utils.pseudo_mask import SMALLEST_AREA, gaussian_prior

DELTAS = (0.3, 0.5, 0.7)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRUE_BOX = np.array([[40, 50, 160, 170]])
REPEATS, IMAGES = 5, 8


def main():
    Parser(__doc__).parse_args()
    rng = np.random.default_rng(0)
    cams = [smooth_map(rng, 256) for _ in range(IMAGES)]
    photos = [(255 * np.dstack([smooth_map(rng, 500)[:375] for _ in range(3)])).astype(np.uint8)
              for _ in range(IMAGES)]
    maps = [smooth_map(rng, SIDE) for _ in range(IMAGES)]
    rows = [compare('Gaussian prior', gaussian_prior, plain_gaussian_prior, cams, 1 / 255),
            compare('resize and normalise', transform, plain_transform, photos, 0.03),
            compare('MaxBoxAccV2', max_box_acc, plain_max_box_acc, maps, 0)]
    if not all(rows):
        sys.exit(1)


def compare(name: str, fast: Callable, plain: Callable, inputs: list, tolerance: float) -> bool:
    """Print both speeds, their ratio and the largest difference; whether that is tolerable."""
    difference = max(float(np.abs(np.asarray(fast(x), float) - np.asarray(plain(x), float)).max())
                     for x in inputs)
    ours, theirs = (1000 * seconds_per_image(function, inputs) for function in (fast, plain))
    equal = difference <= tolerance
    print(f'{name:22} {ours:8.2f} ms, plain {theirs:8.2f} ms: {theirs / ours:5.1f} x; largest '
          f'difference {difference:.2g}{"" if equal else ": TOO LARGE"}')
    return equal


def seconds_per_image(function: Callable, inputs: list) -> float:
    """The median over repeats."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        for x in inputs:
            function(x)
        times.append((time.perf_counter() - begin) / len(inputs))
    return float(np.median(times))


def smooth_map(rng: np.random.Generator, side: int) -> np.ndarray:
    """Blobs as those of a CAM, side x side float32, from 0 to 1."""
    values = cv2.resize(rng.random((12, 12), np.float32) ** 2, (side, side),
                        interpolation=cv2.INTER_CUBIC)
    return normalise_map(values).astype(np.float32)


def transform(photo: np.ndarray) -> np.ndarray:
    batch = torch.from_numpy(resize(photo, (256, 256)))[None]
    return normalise(batch, MEAN, STD)[0].permute(1, 2, 0).numpy()


def plain_transform(photo: np.ndarray) -> np.ndarray:
    return resize((photo.astype(np.float32) / 255 - MEAN) / STD, (256, 256))


def plain_gaussian_prior(cam: np.ndarray) -> np.ndarray:
    """The formula over the whole image, for one contour after the other."""
    weak = np.where((cam >= 0.1) & (cam <= 0.5), cam, 0).astype(np.float64)
    y, x = np.mgrid[:cam.shape[0], :cam.shape[1]].astype(np.float64)
    prior = np.zeros_like(weak)
    for contour in contours_of(weak > 0):
        if cv2.contourArea(contour) < SMALLEST_AREA:
            continue
        filled = cv2.drawContours(np.zeros(cam.shape, np.uint8), [contour], -1, 1, cv2.FILLED)
        p = filled * weak
        p /= p.sum()
        dx, dy = x - (p * x).sum(), y - (p * y).sum()
        sx, sy, sxy = ((p * d).sum() / 10 for d in (dx**2, dy**2, dx * dy))
        z = dx**2 / sx - 2 * dx * dy * sxy / (sx * sy) + dy**2 / sy
        prior = np.maximum(prior, np.exp(-z / (2 * (1 - sxy**2 / (sx * sy)))))
    return prior


def max_box_acc(score_map: np.ndarray) -> np.ndarray:
    metric = MaxBoxAcc(DELTAS, multi_contour=True)
    metric.accumulate(score_map, TRUE_BOX, (SIDE, SIDE))
    return metric.hits


def plain_max_box_acc(score_map: np.ndarray) -> np.ndarray:
    """Binarise once for every threshold."""
    levels = (normalise_map(score_map) * 255).astype(np.uint8)
    ious = np.array([plain_iou(levels > int(threshold * levels.max()))
                     for threshold in THRESHOLDS])
    return ious >= np.array(DELTAS)[:, None]


if __name__ == '__main__':
    run(main)
