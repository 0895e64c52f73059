"""What the test scripts share: a network that is ready to predict, and batches to predict on."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from utils.errors import InputError
from utils.images import normalise
from utils.lists import ImageList
from utils.loading import Batches, in_order
from utils.progress import track
from utils.runtime import Precision, choose_device


class Predictor:
    """A network in evaluation mode, on its device, at the precision that --amp says."""

    def __init__(self, model: nn.Module, args: argparse.Namespace):
        if args.amp == 'apex':
            raise InputError('--amp apex is for training: use --amp auto or off')
        self.device = choose_device(args.device)
        self.precision = Precision(args.amp, self.device)
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def __call__(self, images: Tensor, *more: Tensor, method: Callable | None = None) -> Any:
        """Bytes N x H x W x 3, and more tensors -> what the model, or a method of it, makes of
        them."""
        images = normalise(images.to(self.device), self.model.mean, self.model.std)
        with self.precision.autocast():
            return (method or self.model)(images, *(tensor.to(self.device) for tensor in more))


def labels_of(images: ImageList, batch: dict) -> Tensor:
    """The classes of a batch's images, N int64."""
    return torch.from_numpy(images.labels[batch['index']])


def test_batches(dataset: Dataset, args: argparse.Namespace, label: str) -> Iterator[dict]:
    """All images in order, in batches, with a progress bar."""
    device = choose_device(args.device)
    batches = Batches(dataset, in_order(len(dataset), args.batch_size), args.num_workers, device)
    return track(batches, label, len(dataset))
