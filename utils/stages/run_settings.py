"""What a run has recorded in the results.json beside its checkpoints: settings, class names."""

import re
from pathlib import Path
from typing import Any

from utils.data.lists import list_path, read_lines
from utils.errors import InputError
from utils.outputs.results import read_results

# `<class>/<name>.jpg,<label>` or `<wnid>/<name>.JPEG <label>`, a box may follow.
LIST_LINE = re.compile(r'(?P<folder>[^/]+)/.+?\.\w+[, ](?P<label>[0-9]+)(,|$)')


def recorded_settings(checkpoint: str | Path, defaults: dict[str, Any],
                      given: dict[str, Any] | None = None) -> dict[str, Any]:
    """The defaults, replaced by what the checkpoint's run has recorded, and by what is given (None:
    not given)."""
    results = _results_of(checkpoint)
    recorded = {**results.get('training', {}).get('arguments', {}),
                **results.get('arguments', {})}
    return {**defaults, **{name: recorded[name] for name in defaults if name in recorded},
            **{name: value for name, value in (given or {}).items() if value is not None}}


def recorded_class_names(checkpoint: str | Path) -> dict[int, str]:
    """The class folder of each label in the list that the checkpoint was trained on; empty if the
    list is not known or gone."""
    arguments = _results_of(checkpoint).get('training', {}).get('arguments', {})
    if 'datapath' not in arguments:
        return {}
    path = list_path(Path(arguments['datapath']), arguments.get('list', 'train.txt'))
    try:
        lines = [LIST_LINE.match(line) for _, line in read_lines(path)]
    except InputError:  # the data may be gone
        return {}
    return {int(line['label']): line['folder'] for line in lines if line}


def _results_of(checkpoint: str | Path) -> dict[str, Any]:
    return read_results(Path(checkpoint).parent / 'results.json')
