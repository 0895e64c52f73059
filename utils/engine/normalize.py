"""Batches of images as the data sets give them -> the input of a network."""

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Images N x H x W x 3, uint8 or float32 in [0, 1] -> float32 N x 3 x H x W, channels last in
    memory, with `mean` subtracted and divided by `std` (RGB, of images in [0, 1]).

    Both are buffers, since tensors made in each step would be blocking copies to the GPU.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean), persistent=False)
        self.register_buffer('std', torch.tensor(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        count, height, width, channels = images.shape
        scale = 1 if images.is_floating_point() else 255
        # Along whole rows, not three values at a time: several times faster on the CPU.
        rows = images.reshape(count * height, width * channels).to(torch.float32, copy=True)
        rows.sub_((self.mean * scale).repeat(width)).div_((self.std * scale).repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
