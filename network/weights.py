"""Loading of weights: pretrained ones by name or file, and checkpoints, ours or the authors'.

Files are loaded with `weights_only=True`: loading cannot execute code.
"""

import hashlib
import json
import pickle
import re
import struct
from pathlib import Path

import torch
from torch import Tensor, nn

from network import InputError

RESOURCE = Path(__file__).resolve().parents[1] / 'resource'
# Keys under which a state dict lies in the files of training loops, ours (last.ckpt) included.
WRAPPERS = ('state_dict', 'model_state_dict', 'model')
NAMED = 3  # keys of each kind in a message
# What torch.load raises on files that are not checkpoints, or damaged.
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
    for folder in (RESOURCE, Path(torch.hub.get_dir()) / 'checkpoints'):
        path = folder / filename
        if path.is_file():
            if not digest(path).startswith(re.search(r'-([0-9a-f]{8})\.', filename)[1]):
                raise InputError(f'{path} is corrupted (its SHA-256 does not match its name): '
                                 'delete it and run again')
            return path
    path = RESOURCE / filename
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
    except Exception as error:
        if not isinstance(error, LOAD_ERRORS) and 'Safetensor' not in type(error).__name__:
            raise
        raise InputError(f'{path} cannot be read as weights ({first_line(error)}): it is damaged, '
                         'or not a checkpoint; download or train it again') from error
    if isinstance(state, dict):
        state = next((state[key] for key in WRAPPERS if isinstance(state.get(key), dict)), state)
    if not (isinstance(state, dict) and state and all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items())):
        raise InputError(f'{path} is not a state dict of named tensors: save model.state_dict()')
    state = {key.replace('_orig_mod.', '').removeprefix('module.'):
             value.float() if value.dtype == torch.float16 else value
             for key, value in state.items()}
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

    Raises InputError with the numbers of missing, unexpected and misshaped keys, and the first
    three of each, in the file's names.
    """
    state, names = read_state(path), {key: key for key in model.state_dict()}
    if any(key.startswith('bkbone.') for key in state):
        names = {key: released_name(key) for key in names}
    load_strictly(model, state, path, names)


def released_name(key: str) -> str:
    """A key of our MFF-Net's state dict -> the released state dicts' name of the same tensor."""
    for pattern, replacement in RELEASED_NAMES:
        key, found = re.subn(pattern, replacement, key)
        if found:
            return key
    return key


def load_strictly(model: nn.Module, state: dict[str, Tensor], path: str | Path,
                  names: dict[str, str] | None = None) -> None:
    """Load exactly the model's keys; `names`: the model's key -> the file's. Raises InputError."""
    expected = model.state_dict()
    names = names or {key: key for key in expected}
    # PyTorch before 0.4.1 did not save this counter, and nothing here depends on it.
    counters = {key for key in expected if key.endswith('num_batches_tracked')}
    faults = {
        'missing': [names[key] for key in expected
                    if names[key] not in state and key not in counters],
        'unexpected': [key for key in state if key not in set(names.values())],
        'misshaped': [f'{names[key]} {tuple(state[names[key]].shape)} instead of '
                      f'{tuple(value.shape)}' for key, value in expected.items()
                      if names[key] in state and state[names[key]].shape != value.shape]}
    if any(faults.values()):
        keys = '; '.join(f'{len(found)} {what}: {", ".join(found[:NAMED])}'
                         + (', ...' if len(found) > NAMED else '')
                         for what, found in faults.items() if found)
        raise InputError(f'{path} {_cause(path, state, expected, names, faults)}: {keys}')
    model.load_state_dict({key: state.get(name, expected[key]) for key, name in names.items()})


def _cause(path: str | Path, state: dict[str, Tensor], expected: dict[str, Tensor],
           names: dict[str, str], faults: dict[str, list[str]]) -> str:
    """Why a file does not fit: another number of classes, or another backbone."""
    if not faults['missing'] and not faults['unexpected']:
        heads = [(state[name].shape[0], value.shape[0]) for key, value in expected.items()
                 if (name := names[key]) in state and value.ndim == 1
                 and state[name].shape != value.shape]
        if len(heads) == 1 and 1 in heads[0]:
            return ('is of another stage: one of cam has an output for each class, one of seg a '
                    'single one; check the file')
        if len(heads) == 1:
            return f'has {heads[0][0]} classes, not {heads[0][1]}: check the number of classes'
    try:
        recorded = json.loads(Path(f'{path}.json').read_bytes())
        built = recorded.get('backbone') or recorded['arch']
        return f'does not fit the network that was built; it was trained with {built}'
    except (OSError, ValueError, LookupError, AttributeError):
        return 'belongs to another network (another stage, --backbone, --arch or --clsnum?)'
