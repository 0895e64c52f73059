"""cls/test: which images the classifier names rightly, at first and among its first five."""

import argparse
import time
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from utils.datasets import TestImages
from utils.lists import ImageList
from utils.results import write_results
from utils.testing import Predictor, test_batches
from utils.top1top5 import write_top1top5


def classify(args: argparse.Namespace, model: nn.Module, images: ImageList, folder: Path) -> None:
    """Write `top1top5.npy` and results.json for the images of a list in `folder`."""
    begin = time.monotonic()
    predictor = Predictor(model, args)
    dataset = TestImages(images, folder, args.resize, args.crop)
    hits = [hits_of_batch(predictor(batch['image']), images.labels[batch['index']])
            for batch in test_batches(dataset, args, 'classifying')]
    top1, top5 = np.concatenate(hits, axis=1)
    path = args.savepath / 'top1top5.npy'
    write_top1top5(path, list(images.names), top1.tolist(), top5.tolist())
    figures = {'count': len(images), 'top1': float(top1.mean()), 'top5': float(top5.mean())}
    write_results(args, figures, time.monotonic() - begin, len(images))
    print(f'top-1 {figures["top1"]:.4f}, top-5 {figures["top5"]:.4f} of {len(images)} images; '
          f'wrote {path}')


def hits_of_batch(logits: Tensor, labels: np.ndarray) -> np.ndarray:
    """logits N x classes, labels (N,) -> bool (2, N): top-1 and top-5 hits."""
    best = logits.topk(min(5, logits.shape[1])).indices.cpu().numpy()
    found = best == labels[:, None]
    return np.stack([found[:, 0], found.any(1)])
