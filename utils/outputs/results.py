"""The output folder of a run, and its results.json with metrics, arguments and versions."""

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.outputs.files import write_json

SECTIONS = ('training', 'evaluation')
PACKAGES = {'torch': 'torch', 'torchvision': 'torchvision', 'timm': 'timm',
            'albumentations': 'albumentations', 'opencv': 'cv2', 'numpy': 'numpy'}


@dataclass(frozen=True)
class RunFolder:
    """The folder that a run writes to; `arguments` are recorded in its results.json."""

    path: Path
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        return self.path / name

    def write_results(self, metrics: dict, seconds: float, images: int,
                      section: str | None = None) -> Path:
        """Write results.json and return its path.

        `metrics` are plain Python values. They are written at the top level, or under `section`
        (`training` or `evaluation`). Writing `training` discards all earlier results; otherwise
        the other sections are kept.
        """
        path = self.file('results.json')
        record = {**metrics, 'arguments': _plain(self.arguments), 'versions': versions(),
                  'seconds': round(seconds, 3),
                  'images_per_second': round(images / max(seconds, 1e-9), 3)}
        old = {} if section == 'training' else read_results(path)
        if section:
            content = {**old, section: record}
        else:
            content = {**record, **{name: old[name] for name in SECTIONS if name in old}}
        write_json(path, content)
        return path


def newest_checkpoint(folder: Path) -> Path | None:
    """The `model-N` of greatest N; None if there is none. Where results.json says how far the
    folder's run got, those beyond it, left by an earlier run, do not count. Modification times say
    nothing: copies change them."""
    models = {int(path.name[6:]): path for path in folder.glob('model-*')
              if path.name[6:].isdecimal()}
    run = read_results(folder / 'results.json').get('training', {})
    steps, epochs = run.get('steps'), run.get('arguments', {}).get('epoch')
    last = steps if steps in models else epochs  # N counts steps, or epochs
    of_run = [number for number in models if last is None or number <= last]
    return models[max(of_run or models)] if models else None


def read_results(path: Path) -> dict:
    """The content of a results.json; empty if it does not exist or cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def versions() -> dict[str, str]:
    """The versions of Python and of those packages that the run has imported."""
    return {'python': platform.python_version(),
            **{name: sys.modules[module].__version__ for name, module in PACKAGES.items()
               if module in sys.modules}}


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value
            for name, value in arguments.items()}
