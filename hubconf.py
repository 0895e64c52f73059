"""SPOL for torch.hub; the arguments are those of `spol.load_spol`.

    model = torch.hub.load(FOLDER, 'spol', 'birds', source='local')
    model = torch.hub.load(FOLDER, 'spol', source='local', cam='model-32', seg='model-8')
    model('photo.jpg').box
"""

import importlib.util
import pathlib
import sys

dependencies = ['albumentations', 'cv2', 'numpy', 'PIL', 'timm', 'torch', 'torchvision', 'tqdm']

folder, path = pathlib.Path(__file__).resolve().parent, list(sys.path)
if 'spol' not in sys.modules:
    # torch.hub has put this folder on sys.path, where `import utils` would lead the caller to ours.
    sys.path[:] = [entry for entry in path if pathlib.Path(entry).resolve() != folder]
    spec = importlib.util.spec_from_file_location('spol', folder / 'spol.py')
    sys.modules['spol'] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules['spol'])
    sys.path[:] = path
spol = sys.modules['spol'].load_spol
