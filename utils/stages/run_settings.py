"""What is recorded of the run that a checkpoint belongs to: settings and class names.

They are in `model-N.json` beside `model-N`, or else, without class names, in results.json. What is
not of the expected type counts as not recorded.
"""

from pathlib import Path
from typing import Any

from utils.outputs.results import read_results

KINDS = {'backbone': str, 'arch': str, 'datapath': str, 'resize': int, 'threshold': (int, float)}


def training_settings(checkpoint: str | Path) -> dict[str, Any]:
    """The flags of the training script by their names; empty where nothing is recorded."""
    path = Path(checkpoint)
    return (read_results(path.with_name(f'{path.name}.json'))
            or _section(_section(_results_of(path), 'training'), 'arguments'))


def recorded_settings(checkpoint: str | Path, defaults: dict[str, Any],
                      given: dict[str, Any] | None = None) -> dict[str, Any]:
    """The defaults, replaced by what the checkpoint's run has recorded, and by what is given (None:
    not given). The threshold is that of the last test, else the training script's."""
    tested = _section(_results_of(checkpoint), 'arguments')
    recorded = {**tested, **training_settings(checkpoint)}
    recorded['threshold'] = tested.get('threshold', recorded.get('threshold'))
    return {**defaults, **{name: recorded[name] for name in defaults
                           if isinstance(recorded.get(name), KINDS.get(name, (int, str)))},
            **{name: value for name, value in (given or {}).items() if value is not None}}


def recorded_class_names(checkpoint: str | Path) -> dict[int, str]:
    """The name of each label in the list that the checkpoint was trained on; empty if there is no
    `model-N.json`."""
    names = training_settings(checkpoint).get('class_names')
    return dict(enumerate(map(str, names))) if isinstance(names, list) else {}


def _section(content: dict[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _results_of(checkpoint: str | Path) -> dict[str, Any]:
    return read_results(Path(checkpoint).with_name('results.json'))
