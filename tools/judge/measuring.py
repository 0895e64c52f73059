"""From score maps, of a folder or of a baseline, to `BenchmarkScores`, in several processes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from tqdm import tqdm

from tools.judge.ground_truth import GroundTruth
from tools.judge.score_maps import find_score_map, read_score_map
from utils.errors import InputError
from utils.localization.measurement import BenchmarkScores
from utils.localization.metrics import BENCHMARK_SIDE, level_ious, pixel_counts

Source = Path | str   # a folder of maps, or the name of a baseline
BASELINES = ('whole image', 'centre box', 'centre Gaussian', 'noise')
NOISE_SIDE = 28       # a CAM's at stride 8; enlarged as a CAM is
GAUSSIAN_WIDTH = 0.25  # standard deviation, of the map's side
CHUNK = 8             # images that a process gets at once


@contextmanager
def processes(jobs: int) -> Iterator[Callable]:
    """Yields `map`, computed by `jobs` processes, in the order of its input."""
    if jobs == 1:
        yield map
        return
    try:
        with ProcessPoolExecutor(jobs, get_context('forkserver'), cv2.setNumThreads, (0,)) as pool:
            yield partial(pool.map, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise InputError('a process of --jobs was killed, perhaps for want of memory: use fewer '
                         '--jobs') from error


def measure_all(source: Source, truths: Sequence[GroundTruth], map_images: Callable = map,
                label: str = '', hits: np.ndarray | None = None) -> BenchmarkScores:
    """What the maps of all images give; `hits`: (N, 2) bool, the classifier's."""
    measured = tqdm(map_images(partial(measure, source), truths), label, len(truths), unit='img',
                    disable=None)
    ious, pixels = zip(*measured, strict=True)
    return BenchmarkScores(_stack(ious), _stack(pixels), hits)


def _stack(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    return None if parts[0] is None else np.stack(parts)


def measure(source: Source, truth: GroundTruth) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(IoUs as `level_ious` returns them or None, `pixel_counts` or None) of an image."""
    score_map = score_map_of(source, truth.name)
    masks = truth.read_masks(BENCHMARK_SIDE)
    return (None if truth.boxes is None else level_ious(score_map, truth.boxes, truth.size),
            None if masks is None else pixel_counts(score_map, *masks))


def score_map_of(source: Source, name: str) -> np.ndarray:
    """The map of an image, float64 224 x 224. Raises InputError where a folder has none."""
    if isinstance(source, Path):
        return read_score_map(find_score_map(source, name), BENCHMARK_SIDE)
    return baseline_map(source, name)


def baseline_map(baseline: str, name: str) -> np.ndarray:
    """What needs no training, as a score map, 224 x 224.

    - whole image: one pixel is lower than the others, so that the box is the image's at every
      threshold.
    - centre box: falls linearly from the centre to the edges; at threshold t, the box has 1 - t of
      the image's sides. So the best threshold is the best side.
    - centre Gaussian: the benchmark's baseline.
    - noise: uniform, another for each image, but the same in each run.
    """
    if baseline == 'noise':
        noise = np.random.default_rng(crc32(name.encode())).random((NOISE_SIDE, NOISE_SIDE))
        return cv2.resize(noise, (BENCHMARK_SIDE, BENCHMARK_SIDE), interpolation=cv2.INTER_CUBIC)
    if baseline == 'whole image':
        score_map = np.ones((BENCHMARK_SIDE, BENCHMARK_SIDE))
        score_map[0, 0] = 0
        return score_map
    offsets = np.abs((np.arange(BENCHMARK_SIDE) + 0.5) / BENCHMARK_SIDE - 0.5)
    if baseline == 'centre box':
        return -np.maximum(*np.meshgrid(offsets, offsets))
    return np.exp(-np.add.outer(offsets**2, offsets**2) / (2 * GAUSSIAN_WIDTH**2))
