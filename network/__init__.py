"""Network definitions (backbones, MFF-Net, classifiers) and weight loading.

Names are imported when they are first used, so that `import network` does not import PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from network.errors import InputError

if TYPE_CHECKING:
    from network.classifier import build_classifier
    from network.mffnet import CamNet, SegNet
    from network.weights import load_checkpoint

__all__ = ['CamNet', 'InputError', 'SegNet', 'build_classifier', 'load_checkpoint']

_MODULES = {
    'CamNet': 'network.mffnet',
    'SegNet': 'network.mffnet',
    'build_classifier': 'network.classifier',
    'load_checkpoint': 'network.weights',
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
