"""Loading of weights: pretrained ones by name or file, and checkpoints, ours or the authors'.

Files are loaded with `weights_only=True`: loading cannot execute code.
"""

import json
import pickle
import re
import struct
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from network.download import download, has_checksum
from network.errors import InputError, first_line

RESOURCE = Path(__file__).resolve().parents[1] / 'resource'

# Keys under which a state dict lies in the files of training loops, ours (last.ckpt) included.
WRAPPERS = ('state_dict', 'model_state_dict', 'model')
# How files begin that downloads leave under a checkpoint's name.
OTHER_KINDS = {
    b'<!doctype': 'is a web page, not a checkpoint: download the file itself',
    b'<html': 'is a web page, not a checkpoint: download the file itself',
    b'version https://git-lfs': 'is a Git LFS pointer, not the checkpoint: run git lfs pull',
    b'\x1f\x8b': 'is compressed by gzip: unpack it first (gunzip)',
}
NAMED = 3  # keys of each kind in a message

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
    expected = model.state_dict()
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

    Prefixes of DataParallel and torch.compile are removed; of a dictionary with a state dict, such
    as last.ckpt, that is taken.
    Raises InputError if the file is missing, corrupted, or contains anything but named, dense,
    finite tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'no weights at {path}: check the path')
    try:
        if path.suffix == '.safetensors':
            state = _load_safetensors(path)
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
    except (MemoryError, *LOAD_ERRORS) as error:
        raise InputError(f'{path} {_why_not_loaded(path, error)}') from error
    if isinstance(state, dict):
        state = next((state[key] for key in WRAPPERS if isinstance(state.get(key), dict)), state)
    if not (isinstance(state, dict) and state and all(map(_is_named_tensor, state.items()))):
        raise InputError(f'{path} is not a state dict of named tensors: save model.state_dict()')
    for key, value in state.items():
        if fault := _fault_of(value):
            raise InputError(f'{path}: {key} {fault}')
    return {key.replace('_orig_mod.', '').removeprefix('module.'): value
            for key, value in state.items()}


def _why_not_loaded(path: Path, error: Exception) -> str:
    with open(path, 'rb') as file:
        start = file.read(64).lstrip().lower()
    for beginning, kind in OTHER_KINDS.items():
        if start.startswith(beginning):
            return kind
    if isinstance(error, MemoryError) or 'allocate memory' in str(error):
        return 'does not fit into memory: close other programs'
    if isinstance(error, pickle.UnpicklingError):
        return ('is refused: it is corrupted, or contains something other than weights '
                f'({first_line(error)})')
    return (f'cannot be read as weights, it may be truncated ({first_line(error)}): download or '
            'train it again')


def _fault_of(value: Tensor) -> str | None:
    """Why a tensor is no weight, if it is none."""
    if value.is_meta or value.is_quantized or value.layout != torch.strided or value.is_nested:
        return ('is a meta, quantised, sparse or nested tensor: save the state dict of the '
                'float model')
    if value.is_floating_point() and not value.float().isfinite().all():
        return ('has values that are not finite: the training has diverged; use an earlier '
                'checkpoint')
    return None


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(error) from error


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint into `model`, strictly: ours, or the authors' by their own key names.

    Raises InputError with the numbers of missing, unexpected, misshaped and mistyped keys, and
    the first three of each, in the file's names.
    """
    state = read_state(path)
    names = {key: key for key in model.state_dict()}
    if any(key.startswith('bkbone.') for key in state):
        names = {key: released_name(key) for key in names}
    check_keys(path, state, {names[key]: value for key, value in model.state_dict().items()})
    model.load_state_dict({key: state[name] for key, name in names.items() if name in state})


def released_name(key: str) -> str:
    """A key of our MFF-Net's state dict -> the released state dicts' name of the same tensor."""
    for pattern, replacement in RELEASED_NAMES:
        key, found = re.subn(pattern, replacement, key)
        if found:
            return key
    return key


def check_keys(path: str | Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise InputError unless `state` has exactly the `expected` names, shapes, and floats where
    floats are expected."""
    # PyTorch before 0.4.1 did not save this counter, and nothing here depends on it.
    missing = [k for k in expected if k not in state and not k.endswith('num_batches_tracked')]
    unexpected = [k for k in state if k not in expected]
    both = [(k, state[k], value) for k, value in expected.items() if k in state]
    misshaped = [f'{k} {tuple(found.shape)} instead of {tuple(value.shape)}'
                 for k, found, value in both if found.shape != value.shape]
    mistyped = [f'{k} {found.dtype} instead of {value.dtype}' for k, found, value in both
                if found.is_floating_point() != value.is_floating_point()]
    differing = {'missing': missing, 'unexpected': unexpected, 'misshaped': misshaped,
                 'of another type': mistyped}
    if any(differing.values()):
        keys = '; '.join(f'{len(names)} {what}: {", ".join(names[:NAMED])}'
                         + (', ...' if len(names) > NAMED else '')
                         for what, names in differing.items() if names)
        cause = _other_backbone(path, state, expected) or (
            'belongs to another network (another stage, --backbone, --arch or --clsnum?)')
        raise InputError(f'{path} {cause}: {keys}')


def _other_backbone(path: str | Path, state: dict[str, Tensor], expected: dict[str, Tensor]
                    ) -> str | None:
    """What to say of an MFF-Net's checkpoint with another backbone than expected."""
    found, wanted = _backbone_of(state), _backbone_of(expected)
    if found == 'timm/NAME':  # whose keys do not tell the name
        found = _recorded_backbone(path) or found
    if found is None or wanted is None or found == wanted:
        return None
    return f'has another backbone: give --backbone {found}'


def _backbone_of(keys: Iterable[str]) -> str | None:
    from network.backbone import RESNET_BLOCKS  # which imports this module

    inner = [key.partition('.')[2] for key in keys if key.startswith(('backbone.', 'bkbone.'))]
    if any(key.startswith('model.') for key in inner):
        return 'timm/NAME'
    blocks = tuple(len({key.split('.')[1] for key in inner if key.startswith(f'layer{stage}.')})
                   for stage in (1, 2, 3, 4))
    return next((name for name, some in RESNET_BLOCKS.items() if some == blocks), None)


def _recorded_backbone(path: str | Path) -> str | None:
    """The backbone in the results.json beside a checkpoint."""
    try:
        results = json.loads(Path(path).with_name('results.json').read_bytes())
        return str(results['training']['arguments']['backbone'])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_named_tensor(item: tuple) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)

