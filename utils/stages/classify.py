"""Stage 1: the classifier's parameter groups, and the images that it names correctly."""

import time

import numpy as np
from torch import Tensor, nn

from network.classifier import head_parameters
from utils.data.datasets import EvalImages
from utils.data.lists import ImageList
from utils.engine.inference import Inference, labels_of
from utils.localization.boxes import CentreCrop
from utils.outputs.bad_images import BadImages
from utils.outputs.results import RunFolder
from utils.outputs.top1top5 import write_top1top5


def parameter_groups(model: nn.Module, lr: float) -> list[dict]:
    """SGD's groups: the new last layer at `lr`, the rest at a tenth."""
    head = head_parameters(model)
    rest = [p for p in model.parameters() if all(p is not h for h in head)]
    return [{'params': head, 'lr': lr}, {'params': rest, 'lr': lr / 10}]


def evaluate_classifier(model: nn.Module, images: ImageList, crop: CentreCrop,
                        inference: Inference, run: RunFolder) -> None:
    """Write `top1top5.npy` and results.json for the images of a list.

    The metrics are those of the images that can be decoded. In `top1top5.npy` the others count as
    wrong.
    """
    begin = time.monotonic()
    predict = inference.predictor(model)

    def find_hits(batch: dict) -> dict[int, list[bool]]:
        logits = predict.transfer.download(predict(batch['image']))
        hits = hits_of_batch(logits, labels_of(images, batch).numpy())
        return dict(zip(batch['index'].tolist(), hits.T.tolist(), strict=True))

    bad = BadImages(images, run.file('bad_images.txt'))
    parts = inference.map(EvalImages(images, image=crop), find_hits, 'classifying', bad)
    hits = {index: hit for part in parts for index, hit in part.items()}
    hits_of_ranks = inference.gather(hits, bad)
    if not hits_of_ranks:
        return
    hits = {index: hit for part in hits_of_ranks for index, hit in part.items()}
    top1, top5 = np.array(list(hits.values())).mean(0).tolist()
    path = run.file('top1top5.npy')
    all_hits = [hits.get(index, (False, False)) for index in range(len(images))]
    write_top1top5(path, [images.name(index) for index in range(len(images))],
                   *map(list, zip(*all_hits, strict=True)))
    metrics = {'count': len(hits), 'top1': top1, 'top5': top5}
    run.write_results(metrics, time.monotonic() - begin, len(hits))
    print(f'top-1 {top1:.4f}, top-5 {top5:.4f} of {len(hits)} images; '
          f'wrote {path}{bad.summary()}')


def hits_of_batch(logits: Tensor, labels: np.ndarray) -> np.ndarray:
    """logits N x classes on the CPU, labels (N,) -> bool (2, N): top-1 and top-5 hits."""
    best = logits.topk(min(5, logits.shape[1])).indices.numpy()
    found = best == labels[:, None]
    return np.stack([found[:, 0], found.any(1)])
