"""Network definitions (backbones, MFF-Net, classifiers) and weight loading.

`CamNet`, `SegNet`, `build_classifier` and `load_checkpoint` are imported when they are first used,
so that `import network` does not import PyTorch.
"""

from importlib import import_module

_MODULES = {'CamNet': 'mffnet', 'SegNet': 'mffnet', 'build_classifier': 'classifier',
            'load_checkpoint': 'weights'}
__all__ = ['CamNet', 'InputError', 'SegNet', 'build_classifier', 'load_checkpoint']


class InputError(Exception):
    """Bad input. Its message is one line: what is wrong, where, and what to do about it."""


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f'network.{_MODULES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
