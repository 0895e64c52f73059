"""Pseudo masks of a batch of CAMs on their device, equal to `pseudo_mask` but for rounding.

Resizing and the Gaussians' values are tensor code. Only the contours, and the mean and covariance
inside each, are found by the CPU.
"""

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from utils.engine.transfer import Transfer
from utils.localization.pseudo_mask import MASK_SIDE, Gaussian, fit_gaussians

MAX_BYTES = 2**26  # of masks in memory at once, unless a single one is larger

Size = tuple[int, int]


@torch.inference_mode()
def pseudo_masks(cams: Tensor, sizes: list[Size], transfer: Transfer) -> Iterator[np.ndarray]:
    """CAMs, one class for each image, N x h x w float32, >= 0, on the device of `transfer` -> each
    image's stored mask, uint8 H x W x 3 (`utils.localization.pseudo_mask.pseudo_mask`).

    `sizes`: (H, W) of each image.
    """
    cams = scaled_cams(cams)
    gaussians = [list(fit_gaussians(cam)) for cam in transfer.download(cams).numpy()]
    channels = 255 * torch.stack([cams, gaussian_priors(gaussians, transfer)], 1)
    for part in _parts(sizes):
        yield from _stored(channels[part], sizes[part], transfer)


def scaled_cams(cams: Tensor) -> Tensor:
    """CAMs N x h x w, >= 0 -> N x MASK_SIDE x MASK_SIDE, the maximum of each scaled to 1 (all 0
    stays 0)."""
    cams = cams / (cams.amax((1, 2), keepdim=True) + 1e-6)
    return _resize(cams[:, None], (MASK_SIDE, MASK_SIDE))[:, 0]


def gaussian_priors(gaussians: list[list[Gaussian]], transfer: Transfer) -> Tensor:
    """The Gaussians of each of N CAMs -> their pixelwise maximum, N x MASK_SIDE x MASK_SIDE float32
    in [0, 1]; 0 where there is none."""
    priors = torch.zeros((len(gaussians), MASK_SIDE, MASK_SIDE), device=transfer.device)
    # The first Gaussian of all CAMs, then the second of those that have one, ...: one at a time
    # for each CAM, so that memory does not grow with their number.
    rounds = [[(owner, *gaussian) for owner, gaussian in enumerate(column) if gaussian]
              for column in zip_longest(*gaussians)]
    rows = torch.tensor([row for column in rounds for row in column], dtype=torch.float64)
    rows = transfer.upload(rows.view(-1, 6))
    for part in rows.split([len(column) for column in rounds]):
        owners = part[:, 0].long()
        priors[owners] = torch.maximum(priors[owners], _gaussian_maps(part[:, 1:]))
    return priors


def _gaussian_maps(gaussians: Tensor) -> Tensor:
    """K x 5 float64, the fields of a `Gaussian` -> K x MASK_SIDE x MASK_SIDE float32.

    The exponent's quadratic form is that of `pseudo_mask` as a sum of two squares, in which large
    terms do not cancel: dx² / sx + (dy - dx sxy / sx)² / (sy - sxy² / sx).
    """
    mean_x, mean_y, sx, sy, sxy = gaussians[:, :, None].unbind(1)
    pixels = torch.arange(MASK_SIDE, dtype=torch.float64, device=gaussians.device)
    dx, dy = pixels - mean_x, pixels - mean_y
    scale = (sy - sxy**2 / sx).rsqrt()
    across, shear, down = (x.float() for x in (dx * sx.rsqrt(), dx * scale * sxy / sx, dy * scale))
    squares = across[:, None, :]**2 + (down[:, :, None] - shear[:, None, :])**2
    return squares.mul_(-0.5).exp_()


def _stored(channels: Tensor, sizes: list[Size], transfer: Transfer) -> Iterator[np.ndarray]:
    """Channels N x 2 x MASK_SIDE x MASK_SIDE, from 0 to 255 -> masks of these sizes, by one
    transfer."""
    counts = [3 * height * width for height, width in sizes]
    masks = torch.zeros(sum(counts), dtype=torch.uint8, device=channels.device)
    for image, size, mask in zip(channels, sizes, masks.split(counts), strict=True):
        resized = _resize(image[None], size)[0].permute(1, 2, 0)
        mask.view(*size, 3)[..., :2] = resized  # the conversion truncates
    for size, mask in zip(sizes, transfer.download(masks).split(counts), strict=True):
        yield mask.view(*size, 3).numpy()


def _parts(sizes: list[Size]) -> Iterator[slice]:
    """Successive images whose masks fit into MAX_BYTES, or a single one."""
    first, total = 0, 0
    for index, (height, width) in enumerate(sizes):
        total += 3 * height * width
        if total > MAX_BYTES and index > first:
            yield slice(first, index)
            first, total = index, 3 * height * width
    yield slice(first, len(sizes))


def _resize(maps: Tensor, size: Size) -> Tensor:
    """As OpenCV's INTER_LINEAR: half-pixel centres, no antialiasing; N x C x h x w."""
    return interpolate(maps, size, mode='bilinear', align_corners=False)
