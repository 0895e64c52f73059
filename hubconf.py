"""SPOL for torch.hub.

    model = torch.hub.load(FOLDER, 'spol', 'birds', source='local')
    model = torch.hub.load(FOLDER, 'spol', source='local', cam='model-32', seg='model-8')
    model('photo.jpg').box

The arguments are those of `spol.load_spol`.
"""

import importlib.util
import pathlib
import sys

dependencies = ['albumentations', 'cv2', 'numpy', 'PIL', 'timm', 'torch', 'torchvision', 'tqdm']

_folder = pathlib.Path(__file__).resolve().parent
if 'spol' not in sys.modules:
    # torch.hub has put this folder on sys.path, where `import utils` would lead the caller to ours.
    _path = list(sys.path)
    sys.path[:] = [_entry for _entry in _path if pathlib.Path(_entry).resolve() != _folder]
    _spec = importlib.util.spec_from_file_location('spol', _folder / 'spol.py')
    sys.modules['spol'] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules['spol'])
    sys.path[:] = _path
spol = sys.modules['spol'].load_spol
