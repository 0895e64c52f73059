"""results.json: a run's figures with all that is needed to tell where they come from."""

import argparse
import json
import platform
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
import torchvision

from utils.outputs.files import write_json

SECTIONS = ('training', 'evaluation')


def write_results(args: argparse.Namespace, figures: dict, seconds: float, images: int,
                  section: str | None = None) -> Path:
    """Write `<savepath>/results.json` and return its path.

    `figures` are plain Python values. A test's stand at the top level; with a `section`
    (`training`, `evaluation`) they stand below it. What a new training makes stale goes.
    """
    path = args.savepath / 'results.json'
    record = {**figures, 'arguments': _plain(vars(args)), 'versions': versions(),
              'seconds': round(seconds, 3),
              'images_per_second': round(images / max(seconds, 1e-9), 3)}
    old = {} if section == 'training' else _read(path)
    if section:
        content = {**old, section: record}
    else:
        content = {**record, **{name: old[name] for name in SECTIONS if name in old}}
    write_json(path, content)
    return path


def versions() -> dict[str, str]:
    return {'python': platform.python_version(), 'torch': torch.__version__,
            'torchvision': torchvision.__version__, 'timm': timm.__version__,
            'opencv': cv2.__version__, 'numpy': np.__version__}


def _plain(arguments: dict) -> dict:
    return {name: str(value) if isinstance(value, Path) else value
            for name, value in arguments.items()}


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
