"""Stage 1's test: the images that the classifier names correctly."""

import time
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch

from utils.boxes import CentreCrop
from utils.distributed import gather_to_main
from utils.inference import ListInference, Predictor
from utils.lists import ImageList
from utils.results import RunFolder
from utils.top1top5 import write_top1top5


def evaluate_classifier(predict: Predictor, images: ImageList, crop: CentreCrop, options: Any,
                        run: RunFolder) -> None:
    """Write `top1top5.npy` and results.json for the images of a list."""
    begin = time.monotonic()
    inference = ListInference(predict, images, {'image': crop}, find_hits, options)
    parts = gather_to_main(list(inference.run('classifying')))
    if not parts:  # another rank than 0
        return
    hits = np.zeros((len(images), 2), bool)
    for index, of_batch in chain(*parts):
        hits[index] = of_batch
    path = run.path / 'top1top5.npy'
    write_top1top5(path, images.names.tolist(), hits)
    top1, top5 = hits.mean(0).tolist()
    run.write_results({'count': len(images), 'top1': top1, 'top5': top5},
                      time.monotonic() - begin, len(images))
    print(f'top-1 {top1:.4f}, top-5 {top5:.4f} of {len(images)} images; wrote {path}')


def find_hits(batch: Mapping[str, np.ndarray], outputs: dict[str, Any]
              ) -> tuple[np.ndarray, np.ndarray]:
    """(index, hits) of a batch: bool (N, 2), the first class is right, and one of the first
    five."""
    logits = torch.from_numpy(outputs['image'])
    best = logits.topk(min(5, logits.shape[1])).indices.numpy()
    found = best == batch['label'][:, None]
    return batch['index'], np.stack([found[:, 0], found.any(1)], 1)
