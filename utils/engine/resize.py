"""Views of decoded images, resized as a batch on their device."""

import numpy as np
import torch
from torch import Tensor

from utils.engine.transfer import Transfer
from utils.localization.boxes import CentreCrop


@torch.inference_mode()
def resized_views(pixels: Tensor, sizes: np.ndarray, views: dict[str, CentreCrop],
                  transfer: Transfer) -> dict[str, Tensor]:
    """The pixels of N images one after the other, uint8 (sum of H W) x 3, and their sizes (H, W),
    N x 2 -> each view of them, float32 in [0, 1], N x S x S x 3.

    Equal to `CentreCrop.view` but for rounding. The pixels are uploaded at once.
    """
    pixels = transfer.upload(pixels)
    return {name: _resized(pixels, sizes, view, transfer) for name, view in views.items()}


def pixels_of(images: list[np.ndarray]) -> Tensor:
    """Images, uint8 H x W x 3 -> their pixels one after the other."""
    return torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images]))


def _resized(pixels: Tensor, sizes: np.ndarray, view: CentreCrop, transfer: Transfer) -> Tensor:
    heights, widths = sizes.T
    first = np.cumsum(heights * widths) - heights * widths
    above, below, down = _neighbours(heights, view)
    left, right, across = _neighbours(widths, view)
    starts = np.stack([first[:, None] + row * widths[:, None] for row in (above, below)])
    starts, columns, down, across = (transfer.upload(torch.from_numpy(array)) for array in (
        starts, np.stack([left, right]), down, across))

    def interpolated(row: Tensor) -> Tensor:
        """Along the rows that start at these pixels, N x S."""
        near, far = (pixels[row[:, :, None] + column[:, None, :]].float() for column in columns)
        return near.lerp_(far, across[:, None, :, None])

    top, bottom = map(interpolated, starts)
    return top.lerp_(bottom, down[:, :, None, None]).div_(255)


def _neighbours(lengths: np.ndarray, view: CentreCrop
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each side of N images and each of the S pixels of the view: the two pixels that it lies
    between, N x S int64, and the weight of the second, N x S float32.

    As OpenCV's INTER_LINEAR: half-pixel centres, no antialiasing.
    """
    centres = np.arange(view.resize)[view.kept] + 0.5
    exact = centres * (lengths / view.resize)[:, None] - 0.5
    first = np.floor(exact).astype(np.int64)
    weight = (exact - first).astype(np.float32)
    last = lengths[:, None] - 1
    weight[(first < 0) | (first >= last)] = 0
    return first.clip(0, last), (first + 1).clip(0, last), weight
