"""Stage 1's test: the images that the classifier names correctly."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from utils.boxes import CentreCrop
from utils.errors import InputError
from utils.inference import ListInference, Predictor
from utils.lists import ImageList
from utils.results import RunFolder
from utils.top1top5 import write_top1top5


def evaluate_classifier(predict: Predictor, images: ImageList, crop: CentreCrop, options: Any,
                        run: RunFolder) -> None:
    """Write `top1top5.npy` and results.json for the images of a list.

    The metrics are those of the images that can be decoded. In `top1top5.npy` the others count as
    wrong.
    """
    begin = time.monotonic()
    inference = ListInference(predict, images, {'image': crop}, find_hits, options)
    parts, left_out = inference.gather(list(inference.run('classifying')), run)
    if not parts:  # another rank than 0
        return
    found = [part for of_rank in parts for part in of_rank]
    if not found:
        raise InputError(f'none of the images of {images.source} can be decoded')
    hits, known = np.zeros((len(images), 2), bool), np.zeros(len(images), bool)
    for index, of_batch in found:
        hits[index], known[index] = of_batch, True
    path = run.file('top1top5.npy')
    write_top1top5(path, images.names.tolist(), hits)
    top1, top5 = hits[known].mean(0).tolist()
    run.write_results({'count': int(known.sum()), 'top1': top1, 'top5': top5},
                      time.monotonic() - begin, int(known.sum()))
    print(f'top-1 {top1:.4f}, top-5 {top5:.4f} of {known.sum()} images; wrote {path}{left_out}')


def find_hits(batch: Mapping[str, np.ndarray], outputs: dict[str, Any]
              ) -> tuple[np.ndarray, np.ndarray]:
    """(index, hits) of a batch: bool (N, 2), the first class is right, and one of the first
    five."""
    logits = torch.from_numpy(outputs['image'])
    best = logits.topk(min(5, logits.shape[1])).indices.numpy()
    found = best == batch['label'][:, None]
    return batch['index'], np.stack([found[:, 0], found.any(1)], 1)
