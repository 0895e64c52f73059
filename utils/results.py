"""The output folder of a run: model-N, model-N.json, and results.json with metrics, arguments and
versions."""

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from utils.files import read_json, write_json

SECTIONS = ('training', 'evaluation')
# What of a training's arguments is recorded in model-N.json: what the network depends on.
MODEL_ARGUMENTS = ('stage', 'backbone', 'arch', 'stages', 'fusion', 'no_attention', 'resize',
                   'crop', 'clsnum', 'seed', 'threshold', 'list', 'datapath', 'maskpath')
PACKAGES = {'torch': 'torch', 'torchvision': 'torchvision', 'timm': 'timm',
            'albumentations': 'albumentations', 'opencv': 'cv2', 'numpy': 'numpy'}


@dataclass(frozen=True)
class RunFolder:
    """The folder that a run writes to; `arguments` are recorded in its results.json, and
    `class_names` beside its checkpoints."""

    path: Path
    arguments: Mapping[str, Any] = field(default_factory=dict)
    class_names: Sequence[str] = ()

    def write_results(self, metrics: dict, seconds: float, images: int,
                      section: str | None = None) -> Path:
        """Write results.json and return its path.

        `metrics`, plain Python values, are written at the top level, or under `section` (`training`
        or `evaluation`). Writing `training` discards all earlier results; otherwise the other
        sections are kept.
        """
        path = self.path / 'results.json'
        record = {**metrics, 'arguments': _plain(self.arguments), 'versions': versions(),
                  'seconds': round(seconds, 3),
                  'images_per_second': round(images / max(seconds, 1e-9), 3)}
        old = {} if section == 'training' else read_json(path)
        if section:
            write_json(path, {**old, section: record})
        else:
            write_json(path, record | {name: old[name] for name in SECTIONS if name in old})
        return path

    def describe_model(self, model: Path) -> None:
        """Write `model-N.json`."""
        arguments = _plain(self.arguments)
        write_json(settings_path(model), {
            **{name: arguments[name] for name in MODEL_ARGUMENTS if name in arguments},
            'class_names': list(self.class_names), 'versions': versions(), 'commit': commit()})


def models_in(folder: Path) -> dict[int, Path]:
    """The `model-N` of a folder by N."""
    return {int(path.name[6:]): path for path in folder.glob('model-*')
            if path.name[6:].isdecimal()}


def newest_checkpoint(folder: Path) -> Path | None:
    """The `model-N` of greatest N; None if there is none. A training removes the models of the
    runs before it."""
    models = models_in(folder)
    return models[max(models)] if models else None


def training_settings(checkpoint: str | Path) -> dict[str, Any]:
    """What is recorded of a checkpoint's training, in model-N.json beside model-N (or NAME.json
    beside NAME.safetensors): the flags of the training script by their names, and more; empty where
    nothing is recorded."""
    return read_json(settings_path(checkpoint))


def settings_path(checkpoint: str | Path) -> Path:
    path = Path(checkpoint)
    return path.with_name(path.name.removesuffix('.safetensors') + '.json')


def recorded_fusion(checkpoint: str | Path) -> dict[str, Any]:
    """The parameters of `CamNet` that a checkpoint's training has recorded."""
    recorded = training_settings(checkpoint)
    return {'stages': recorded.get('stages', '345'),
            'fusion': recorded.get('fusion', 'multiply'),
            'attention': not recorded.get('no_attention', False)}


def versions() -> dict[str, str]:
    """The versions of Python and of those packages that the run has imported."""
    return {'python': platform.python_version(),
            **{name: sys.modules[module].__version__ for name, module in PACKAGES.items()
               if module in sys.modules}}


@cache
def commit() -> str | None:
    """The commit of this repository; None where it is not a git repository."""
    repository = Path(__file__).resolve().parents[1] / '.git'
    try:
        found = subprocess.run(['git', '--git-dir', repository, 'rev-parse', 'HEAD'], text=True,
                               capture_output=True, check=False)
    except OSError:  # no git
        return None
    return found.stdout.strip() or None


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value
            for name, value in arguments.items()}
