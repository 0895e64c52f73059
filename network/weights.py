"""Loading of weights: pretrained ones by name or file, and checkpoints, ours or the authors'.

Files are loaded with `weights_only=True`: loading cannot execute code.
"""

import pickle
import re
import struct
from pathlib import Path

import torch
from torch import Tensor, nn

from network.download import download, has_checksum
from network.errors import InputError, first_line

RESOURCE = Path(__file__).resolve().parents[1] / 'resource'

# What torch.load raises on corrupted files.
LOAD_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError,
               AttributeError, TypeError, ArithmeticError, AssertionError, struct.error)

# The eight hex digits in a file's name begin its SHA-256.
TORCHVISION_URL = 'https://download.pytorch.org/models/'
TORCHVISION_FILES = {
    'resnet50': 'resnet50-19c8e357.pth',
    'resnet101': 'resnet101-5d3b4d8f.pth',
    'resnet152': 'resnet152-b121ed2d.pth',
    'efficientnet_b7': 'efficientnet_b7_lukemelas-c5b4e57e.pth',
    'densenet161': 'densenet161-8d451a50.pth',
}

# torchvision's DenseNet file was saved when its layers were still called `norm.1`.
OLD_DENSENET = re.compile(r'(denselayer\d+\.(?:norm|conv))\.([12]\.)')

# Our names of the modules of MFF-Net -> the released state dicts' (the number is the stage).
RELEASED_NAMES = (
    (r'^backbone\.', r'bkbone.'),
    (r'^mca\.squeeze\.(\d)\.0\.', r'fc\g<1>1.'),
    (r'^mca\.squeeze\.(\d)\.1\.', r'bn\g<1>1.'),
    (r'^mca\.excite\.(\d)\.', r'fc\g<1>2.'),
    (r'^mff\.project\.(\d)\.0\.', r'linear\g<1>.'),
    (r'^mff\.project\.(\d)\.1\.', r'bn\g<1>.'),
    (r'^head\.', r'linear.'),
)


def load_pretrained(model: nn.Module, name: str, pretrained: str) -> None:
    """Load the ImageNet weights of the torchvision model `name`; `model` may lack its `fc`.

    `pretrained`: `none` (the model is not changed); a file; or `auto`, which takes
    `resource/FILE`, else torch.hub's cache, else downloads to `resource/`. `auto` verifies the
    checksum each time.
    Raises InputError if the file is missing, corrupted, belongs to another network, or cannot be
    downloaded.
    """
    if pretrained == 'none':
        return
    path: str | Path = pretrained
    if pretrained == 'auto':
        path = _find_torchvision_file(TORCHVISION_FILES[name])
    expected = {key: value.shape for key, value in model.state_dict().items()}
    state = {OLD_DENSENET.sub(r'\1\2', key): value for key, value in read_state(path).items()
             if key in expected or not key.startswith('fc.')}
    check_keys(path, state, expected)
    model.load_state_dict(state)


def _find_torchvision_file(filename: str) -> Path:
    checksum = 'sha256:' + re.search(r'-([0-9a-f]{8})\.', filename)[1]
    for folder in (RESOURCE, Path(torch.hub.get_dir()) / 'checkpoints'):
        path = folder / filename
        if path.is_file():
            if has_checksum(path, checksum):
                return path
            raise InputError(f'{path} is corrupted (its SHA-256 does not match its name): '
                             'delete it and run again')
    try:
        return download(TORCHVISION_URL + filename, RESOURCE / filename, checksum)
    except InputError as error:
        raise InputError(f'no pretrained weights: {error}, or start from random weights with '
                         '--pretrained none') from error


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save` (old or new format) or in `.safetensors`.

    Raises InputError if it is missing, corrupted, or contains anything but named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'no weights at {path}: check the path')
    try:
        if path.suffix == '.safetensors':
            state = _load_safetensors(path)
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f'{path} is refused: it is corrupted, or contains something other than '
                         f'weights ({first_line(error)})') from error
    except LOAD_ERRORS as error:
        raise InputError(f'{path} cannot be read as weights, it may be truncated '
                         f'({first_line(error)}): download or train it again') from error
    if not (isinstance(state, dict) and state and all(map(_is_named_tensor, state.items()))):
        raise InputError(f'{path} is not a state dict of named tensors: save model.state_dict()')
    return {key.removeprefix('module.'): value for key, value in state.items()}


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(error) from error


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint into `model`, strictly: ours, or the authors' by their own key names.

    Raises InputError that names every missing, unexpected or misshaped key, in the file's names.
    """
    state = read_state(path)
    names = {key: key for key in model.state_dict()}
    if any(key.startswith('bkbone.') for key in state):
        names = {key: released_name(key) for key in names}
    check_keys(path, state, {names[key]: value.shape for key, value in model.state_dict().items()})
    model.load_state_dict({key: state[name] for key, name in names.items() if name in state})


def released_name(key: str) -> str:
    """A key of our MFF-Net's state dict -> the released state dicts' name of the same tensor."""
    for pattern, replacement in RELEASED_NAMES:
        key, found = re.subn(pattern, replacement, key)
        if found:
            return key
    return key


def check_keys(path: str | Path, state: dict[str, Tensor], expected: dict[str, torch.Size]) -> None:
    """Raise InputError unless `state` has exactly the `expected` names and shapes."""
    # PyTorch before 0.4.1 did not save this counter, and nothing here depends on it.
    missing = [k for k in expected if k not in state and not k.endswith('num_batches_tracked')]
    unexpected = [k for k in state if k not in expected]
    misshaped = [f'{k} {tuple(state[k].shape)} instead of {tuple(shape)}'
                 for k, shape in expected.items() if k in state and state[k].shape != shape]
    differing = {'missing': missing, 'unexpected': unexpected, 'misshaped': misshaped}
    if any(differing.values()):
        keys = '; '.join(f'{len(names)} {what}: {", ".join(names)}'
                         for what, names in differing.items() if names)
        raise InputError(f'{path} belongs to another network (another stage, --backbone, --arch or '
                         f'--clsnum?): {keys}')


def _is_named_tensor(item: tuple) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)

