"""Stage 1 of both chains: train the classifier; which images it names rightly."""

import argparse
import time
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from network import build_classifier
from network.classifier import head_parameters
from utils.data.datasets import TestImages, TrainingImages
from utils.data.lists import ImageList
from utils.engine.distributed import gather, is_main
from utils.engine.inference import Predictor, labels_of, process
from utils.engine.trainer import Batch, Trainer, linear_decay
from utils.localization.losses import classification_loss
from utils.outputs.bad_images import BadImages
from utils.outputs.results import write_results
from utils.outputs.top1top5 import write_top1top5


def train_classifier(args: argparse.Namespace, images: ImageList, folder: Path) -> None:
    """Fine-tune: the new last layer at --lr, the rest at a tenth, both falling linearly."""
    dataset = TrainingImages(images, folder, args.resize, args.crop, args.seed)
    model = build_classifier(args.arch, args.clsnum, args.pretrained)
    head = head_parameters(model)
    rest = [p for p in model.parameters() if all(p is not h for h in head)]
    groups = [{'params': head}, {'params': rest, 'lr': args.lr / 10}]
    Trainer(args, model, dataset, groups, _loss, schedule=linear_decay).run()


def _loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return classification_loss(model(batch['image']), batch['label'])


def classify(args: argparse.Namespace, model: nn.Module, images: ImageList, folder: Path) -> None:
    """Write `top1top5.npy` and results.json for the images of a list in `folder`."""
    begin = time.monotonic()
    predictor = Predictor(model, args)
    dataset = TestImages(images, folder, args.resize, args.crop)

    def name_classes(batch: dict) -> dict[int, tuple[bool, bool]]:
        hits = hits_of_batch(predictor(batch['image']), labels_of(images, batch).numpy())
        return dict(zip(batch['index'].tolist(), hits.T.tolist(), strict=True))

    bad = BadImages(args, images)
    hits = {index: hit for batch in process(dataset, args, 'classifying', name_classes, bad)
            for index, hit in batch.items()}
    bad.write()
    for other in gather(hits)[1:]:
        hits.update(other)
    if not is_main():
        return
    indices = sorted(hits)
    top1, top5 = np.array([hits[index] for index in indices]).T
    path = args.savepath / 'top1top5.npy'
    write_top1top5(path, [images.names[index] for index in indices], top1.tolist(), top5.tolist())
    figures = {'count': len(indices), 'top1': float(top1.mean()), 'top5': float(top5.mean())}
    write_results(args, figures, time.monotonic() - begin, len(indices))
    print(f'top-1 {figures["top1"]:.4f}, top-5 {figures["top5"]:.4f} of {len(indices)} images; '
          f'wrote {path}{bad.mention()}')


def hits_of_batch(logits: Tensor, labels: np.ndarray) -> np.ndarray:
    """logits N x classes, labels (N,) -> bool (2, N): top-1 and top-5 hits."""
    best = logits.topk(min(5, logits.shape[1])).indices.cpu().numpy()
    found = best == labels[:, None]
    return np.stack([found[:, 0], found.any(1)])
