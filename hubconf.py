"""SPOL for torch.hub.

    model = torch.hub.load(FOLDER, 'spol', source='local', cam='model-32', seg='model-8')
    model('photo.jpg').box

The arguments are those of `spol.load_spol`.
"""

import importlib
import pathlib

dependencies = ['albumentations', 'cv2', 'defusedxml', 'numpy', 'PIL', 'torch', 'torchvision',
                'tqdm']

# A module of the caller that is called `utils` would be found in place of ours.
for _name in ('network', 'utils'):
    _found = getattr(importlib.import_module(_name), '__path__', [''])[0]
    if pathlib.Path(_found).resolve() != pathlib.Path(__file__).resolve().parent / _name:
        raise ImportError(f'another module called {_name} is imported already: load SPOL first, or '
                          f'rename {_name}')

from spol import load_spol as spol  # noqa: E402, F401
