"""Loading of weights: pretrained ones by name or file, and checkpoints, ours or the authors'.

Files are loaded with `weights_only=True`: loading cannot execute code.
"""

import hashlib
import re
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor, nn

from network import InputError

RESOURCE = Path(__file__).resolve().parents[1] / 'resource'
# Keys under which a state dict lies in the files of training loops, ours (last.ckpt) included.
WRAPPERS = ('state_dict', 'model_state_dict', 'model')

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
    `resource/FILE`, else torch.hub's cache, else downloads to `resource/`.
    Raises InputError if the file is missing, corrupted, belongs to another network, or cannot be
    downloaded.
    """
    if pretrained == 'none':
        return
    path = _torchvision_file(TORCHVISION_FILES[name]) if pretrained == 'auto' else Path(pretrained)
    expected = model.state_dict()
    state = {OLD_DENSENET.sub(r'\1\2', key): value for key, value in read_state(path).items()}
    load_strictly(model, {key: value for key, value in state.items()
                          if key in expected or not key.startswith('fc.')}, path)


def _torchvision_file(filename: str) -> Path:
    path = RESOURCE / filename
    for found in (path, Path(torch.hub.get_dir()) / 'checkpoints' / filename):
        if found.is_file():
            return found
    try:
        torch.hub.load_state_dict_from_url(TORCHVISION_URL + filename, RESOURCE, 'cpu',
                                           check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no connection, a wrong checksum
        raise InputError(f'no pretrained weights: cannot download {TORCHVISION_URL}{filename} '
                         f'({error}): put the file at {path}, or start from random weights with '
                         '--pretrained none') from error
    return path


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save` or in `.safetensors`; float16 becomes float32.

    Prefixes of DataParallel and torch.compile are removed; of a dictionary with a state dict, such
    as last.ckpt, that is taken.
    Raises InputError if the file is missing, corrupted, or contains anything but named, finite
    tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'no weights at {path}: check the path')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load

            state = load(path.read_bytes())
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
        state = next((state[key] for key in WRAPPERS if isinstance(state.get(key), dict)), state)
        state = {key.replace('_orig_mod.', '').removeprefix('module.'):
                 value.float() if value.dtype == torch.float16 else value
                 for key, value in state.items()}
    except Exception as error:  # almost any, on a damaged file
        raise InputError(f'{path} cannot be read as weights ({first_line(error)}): it is damaged, '
                         'or not a state dict; download or train it again') from error
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f'{path}: {key} has values that are not finite: the training has '
                             'diverged; use an earlier checkpoint')
    return state


def first_line(error: Exception) -> str:
    """The first line of an error's message. PyTorch's advice to load without `weights_only` is
    never passed on."""
    message = str(error)
    if 'weights_only' in message:
        name = re.search(r'GLOBAL (\S+)', message)
        return f'it calls {name[1]}' if name else 'it was not written by torch.save'
    return message.splitlines()[0] if message else type(error).__name__


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint into `model`, strictly: ours, or the authors' by their own key names.

    Raises InputError, with what does not fit, if it is of another network.
    """
    ours = {released_name(key): key for key in model.state_dict()}
    load_strictly(model, {ours.get(key, key): value for key, value in read_state(path).items()},
                  path)


def released_name(key: str) -> str:
    """A key of our MFF-Net's state dict -> the released state dicts' name of the same tensor."""
    for pattern, replacement in RELEASED_NAMES:
        key, found = re.subn(pattern, replacement, key)
        if found:
            return key
    return key


def load_strictly(model: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load exactly the model's keys. The counters of batch norm, which PyTorch before 0.4.1 did not
    save, may be missing. Raises InputError."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        keys = shorten(str(error).partition(':')[2].replace('torch.Size', ''), 400)
        raise InputError(f'{path} is of another network (another stage, --backbone, --arch or '
                         f'--clsnum?): {keys}') from error
