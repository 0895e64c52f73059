"""The threshold of the segmentation, chosen on training images without boxes.

It is the one at which the masks of training images agree best with their pseudo masks, on the
pixels that these decide; in the conflict region, nothing tells which scores are right.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.boxes import CentreCrop
from utils.distributed import is_main_process, of_all_ranks
from utils.errors import warn
from utils.files import read_json, write_json
from utils.images import read_stored_mask, resize_nearest
from utils.inference import ListInference, Predictor
from utils.lists import ImageList
from utils.losses import segmentation_probability
from utils.pseudo_mask import seg_target
from utils.results import settings_path, training_settings

MOST_IMAGES = 500  # of the training list, evenly spread
# Logits from -4 to 9.2 in steps of 0.1, as probabilities: near 1, steps of 0.01 are too coarse.
THRESHOLDS = np.round(1 / (1 + np.exp(-np.arange(-40, 93) / 10)), 4)
RULE = 'masks of training images agree best with their pseudo masks; no boxes'


def agreement(probability: np.ndarray, foreground: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The IoU of a map's mask at each of THRESHOLDS with a segmentation target, on its valid
    pixels, float64; 0 where the target has no foreground.

    `probability`: 2-d float in [0, 1]; `foreground`, `valid`: bool of the same shape
    (`utils.pseudo_mask.seg_target`).
    """
    exceeded = np.searchsorted(THRESHOLDS, probability[valid].astype(np.float64))
    right, found = (
        np.bincount(exceeded, weights, len(THRESHOLDS) + 1)[::-1].cumsum()[-2::-1]
        for weights in (foreground[valid], None))
    return right / np.maximum(found + foreground.sum() - right, 1)


def set_threshold(options: Any, predict: Predictor, read_list: Callable[[str], ImageList]) -> None:
    """seg/test --threshold auto: set options.threshold for the segmentation network `predict`, from
    the list and the pseudo masks of its training, and record it in model-N.json, where the tests
    and predictions find it. Raises InputError where there are no masks."""
    recorded = training_settings(options.snapshot)
    masks, side = Path(recorded.get('maskpath', options.maskpath)), options.resize
    images = read_list(recorded.get('list', 'train.txt'))
    inference = ListInference(predict, images, {'image': CentreCrop(side)},
                              Agreeing(images, masks, side), options)
    found = inference.run('choosing a threshold', images.sample(MOST_IMAGES))
    total = sum(of_all_ranks(sum(found, np.zeros(len(THRESHOLDS)))))
    if total.max() <= 0:
        options.threshold = options.paper_threshold
        warn(f'--threshold auto: masks of {options.snapshot} have nothing in common with those in '
             f'{masks}: {options.threshold} is used; train for more steps')
        return
    options.threshold = float(THRESHOLDS[total.argmax()])
    path = settings_path(options.snapshot)
    if is_main_process():
        write_json(path, {**read_json(path), 'threshold': options.threshold,
                          'threshold_rule': RULE})
        print(f'threshold {options.threshold} ({RULE}), recorded in {path}')


@dataclass(frozen=True)
class Agreeing:
    """A batch's logits -> the sum of the agreements of the images' maps with their pseudo masks."""

    images: ImageList
    masks: Path
    side: int

    def __call__(self, batch: Mapping[str, np.ndarray], outputs: dict[str, Any]) -> np.ndarray:
        maps = segmentation_probability(torch.from_numpy(outputs['image']), self.side).numpy()
        total = np.zeros(len(THRESHOLDS))
        for index, probability in zip(batch['index'].tolist(), maps, strict=True):
            stored = read_stored_mask(self.images.mask_path(self.masks, index))
            total += agreement(probability, *seg_target(resize_nearest(stored, maps.shape[1:])))
        return total
