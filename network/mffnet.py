"""MFF-Net, the network of the paper's Figure 4: shallow features sharpen the deep ones.

    image N x 3 x H x W
      -> backbone: stage2 ... stage5 at strides 4 ... 32
      -> MCA: channel attention by one vector, the product of all fused stages' vectors
      -> MFF: each stage projected to 128 channels, resized to stage3's size, multiplied
      -> head: 1x1 convolution to the classes (CamNet) or to one channel (SegNet)

Stage 2 to stage 5 of the backbone are torchvision's layer1 to layer4. Figure 1(b) compares numbers
of fused stages and ways of fusing them: `stages` and `fusion`.
"""

from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from network import InputError
from network.backbone import build_backbone
from network.weights import load_checkpoint, read_state

WIDTH = 128


def multiply(tensors: list[Tensor]) -> Tensor:
    """Elementwise product in float32: in float16, a product of three can overflow."""
    return reduce(torch.mul, (tensor.float() for tensor in tensors))


class Float32Conv1x1(nn.Conv2d):
    """A 1x1 convolution in float32 even under autocast: its input, a product, can exceed fp16."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._conv_forward(x.float(), self.weight.float(), self.bias.float())


def conv_bn_relu(channels: int) -> nn.Sequential:
    """1x1 convolution to 128 channels, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU())


class MCA(nn.Module):
    """Multiplicative channel attention (Figure 4): maps N x C_s x H_s x W_s -> the same, scaled.

    Every stage is pooled and projected to a vector of 128. The product of the vectors, shared by
    all stages, is projected back to each stage's channels and gates them.
    """

    def __init__(self, channels: dict[str, int]):
        super().__init__()
        self.squeeze = nn.ModuleDict({stage: conv_bn_relu(c) for stage, c in channels.items()})
        self.excite = nn.ModuleDict({s: Float32Conv1x1(WIDTH, c) for s, c in channels.items()})

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        pooled = {stage: x.mean((2, 3), keepdim=True) for stage, x in maps.items()}
        shared = multiply([self.squeeze[stage](x) for stage, x in pooled.items()])
        return {stage: x * self.excite[stage](shared).sigmoid().to(x.dtype)
                for stage, x in maps.items()}


class MFF(nn.Module):
    """Multiplicative feature fusion (Figure 4): maps N x C_s x H_s x W_s -> (deep, fused), both
    N x 128 x H x W at the shallowest stage's size. `deep` is the deepest stage's map alone.

    `fusion`: `multiply`, or for the comparison of Figure 1(b) `add` or `concatenate`. Concatenated
    maps have 128 channels for each stage; in `deep` those of the other stages are zero.
    """

    def __init__(self, channels: dict[str, int], fusion: str = 'multiply'):
        super().__init__()
        if fusion not in ('multiply', 'add', 'concatenate'):
            raise ValueError(f'unknown fusion {fusion!r}')
        self.fusion = fusion
        self.width = WIDTH * len(channels) if fusion == 'concatenate' else WIDTH
        self.project = nn.ModuleDict({stage: conv_bn_relu(c) for stage, c in channels.items()})

    def forward(self, maps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        size = maps[min(maps)].shape[2:]
        projected = {stage: upsample(self.project[stage](maps[stage]), size) for stage in maps}
        deepest = max(maps)
        if self.fusion == 'multiply':
            return projected[deepest], multiply(list(projected.values()))
        if self.fusion == 'add':
            return projected[deepest], reduce(torch.add, projected.values())
        deep = [x if stage == deepest else torch.zeros_like(x) for stage, x in projected.items()]
        return torch.cat(deep, 1), torch.cat(list(projected.values()), 1)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners, N x C x h x w -> N x C x size."""
    if maps.shape[2:] == size:
        return maps
    return interpolate(maps, size, mode='bilinear', align_corners=True)


class MFFNet(nn.Module):
    """Base class of CamNet and SegNet: backbone, MCA, MFF, dropout and a 1x1 convolution.

    Arguments:
        outputs: channels of the last convolution.
        backbone, pretrained: as in `network.backbone.build_backbone`.
        stages: the stages of the backbone that are fused, as digits.
        fusion: how MFF fuses them.
        attention: whether MCA is used.

    The defaults are the paper's. `mean` and `std` normalise the input (RGB, images in [0, 1]).
    """

    def __init__(self, outputs: int, backbone: str, pretrained: str, stages: str = '345',
                 fusion: str = 'multiply', attention: bool = True):
        super().__init__()
        self.backbone = build_backbone(backbone, pretrained)
        self.mean, self.std = self.backbone.mean, self.backbone.std
        self.stages = stages
        channels = {stage: self.backbone.channels[int(stage) - 2] for stage in stages}
        self.mca = MCA(channels) if attention else nn.Identity()
        self.mff = MFF(channels, fusion)
        self.dropout = nn.Dropout(0.5)
        self.head = Float32Conv1x1(self.mff.width, outputs)
        for module in (self.mca, self.mff, self.head):
            module.apply(_initialise)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images N x 3 x H x W -> (deep, fused), both N x 128 x H/8 x W/8."""
        maps = self.backbone(images)
        return self.mff(self.mca({stage: maps[int(stage) - 2] for stage in self.stages}))

    def new_parameters(self) -> list[nn.Parameter]:
        """Everything but the backbone's parameters, which are pretrained."""
        return [p for name, p in self.named_parameters() if not name.startswith('backbone.')]


class CamNet(MFFNet):
    """MFF-Net 1 of Figure 4: class activation maps (CAMs) from shallow x deep features.

    Evaluation mode: normalised images N x 3 x H x W -> CAMs N x classes x H/8 x W/8, >= 0.
    Training mode: -> (deep_logits, fused_logits), each N x classes, or fused_logits alone with
    `auxiliary=False`; a logit is the spatial mean of its CAM.
    """

    def __init__(self, classes: int, backbone: str = 'resnet50', auxiliary: bool = True,
                 pretrained: str = 'auto', **fusion: Any):
        super().__init__(classes, backbone, pretrained, **fusion)
        self.auxiliary = auxiliary

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        deep, fused = self.features(images)
        if not self.training:
            return self.cam(fused)
        if not self.auxiliary:
            return self._logits(fused)
        return self._logits(deep), self._logits(fused)

    def class_cams(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The (deep, fused) CAMs of one class per image (N int64), each N x H/8 x W/8, >= 0.

        The deep CAM is the plain CAM of the last stage. No other class's map is computed.
        """
        weight = self.head.weight[labels, :, 0, 0].float()
        bias = self.head.bias[labels, None, None].float()
        deep, fused = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            return tuple((torch.einsum('nchw,nc->nhw', features.float(), weight) + bias).relu()
                         for features in (deep, fused))

    def cam(self, features: Tensor) -> Tensor:
        """A feature map N x 128 x h x w (deep or fused) -> CAMs N x classes x h x w, >= 0."""
        return self.head(features).relu()

    def _logits(self, features: Tensor) -> Tensor:
        return self.cam(self.dropout(features)).mean((2, 3))


class SegNet(MFFNet):
    """MFF-Net 2 of Figure 4: class-agnostic segmentation.

    Normalised images N x 3 x H x W -> logits N x 1 x H/8 x W/8.
    """

    def __init__(self, backbone: str = 'resnet50', pretrained: str = 'auto', **fusion: Any):
        super().__init__(1, backbone, pretrained, **fusion)

    def forward(self, images: Tensor) -> Tensor:
        _, fused = self.features(images)
        return self.head(self.dropout(fused))


def _initialise(module: nn.Module) -> None:
    """Kaiming normal (fan in, ReLU) and zero biases; batch norm starts at scale 1, shift 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_in', nonlinearity='relu')
        nn.init.zeros_(module.bias)


def load_cam(checkpoint: str | Path, backbone: str, **fusion: Any) -> CamNet:
    """The CAM network of a checkpoint, which says its number of classes. Raises InputError if it
    is of another network."""
    state = read_state(checkpoint)
    head = state.get('head.weight', state.get('linear.weight'))
    if head is None or len(head) < 2:
        raise InputError(f'{checkpoint} is not a checkpoint of the cam stage, which has two '
                         'classes or more: choose another one')
    model = CamNet(len(head), backbone, pretrained='none', **fusion)
    load_checkpoint(model, checkpoint)
    return model


def load_seg(checkpoint: str | Path, backbone: str) -> SegNet:
    """The segmentation network of a checkpoint; errors as `load_cam`."""
    model = SegNet(backbone, pretrained='none')
    load_checkpoint(model, checkpoint)
    return model
