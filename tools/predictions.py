"""Files of predictions: JSON Lines, COCO and CSV.

A record is what is said of a picture: `file`, `name` (relative to the folder that was given),
`mask` (its file, relative to the output folder), `width`, `height`, `box` (x0, y0, x1, y1 in
pixels, or None), `foreground` (the mask's share of the picture), `label`, `class`, `score` (the
probability of the class, not of the box; None where unknown), `classes` (name and score of the best
five) and, for COCO, `segmentation`. That of a file that cannot be read has `file` and `error`.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from utils.errors import InputError
from utils.outputs.files import atomic_write

NAMES = {'jsonl': 'predictions.jsonl', 'coco': 'predictions.json', 'csv': 'predictions.csv'}
COLUMNS = ('file', 'width', 'height', 'x0', 'y0', 'x1', 'y1', 'label', 'class', 'score',
           'mask')


class PredictionWriter:
    """The records of a run, appended to a hidden file until all are there.

    A run that was interrupted leaves that file. The next one reads from it, picture by picture,
    what is done already; nothing is held in memory. The file's first line has the `settings` of
    the run. Raises InputError if they differ.
    """

    def __init__(self, folder: Path, format: str, settings: dict[str, str]):
        self.path, self.format = folder / f'.{NAMES[format]}.part', format
        self.result = folder / NAMES[format]
        self.count = 0  # of the predictions, once they are written
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            self._cut_unfinished_line()
            first = self.path.stat().st_size == 0
        except OSError as error:
            raise InputError(f'cannot write to {folder} ({error.strerror}): check its rights and '
                             'the free space') from error
        if first:
            self.append({'settings': settings})
        elif next(self._lines(), {}).get('settings') != settings:
            raise InputError(f'{self.path} belongs to a run with other settings: finish that run, '
                             'delete the file, or use another --out')

    def done(self) -> Iterator[dict]:
        """The records that are there."""
        return islice(self._lines(), 1, None)

    def _lines(self) -> Iterator[dict]:
        with open(self.path, encoding='utf-8') as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise InputError(f'{self.path} is damaged: delete it, and start '
                                     'again') from error

    def append(self, record: dict) -> None:
        try:
            with open(self.path, 'a', encoding='utf-8') as file:
                file.write(json.dumps(record) + '\n')
        except OSError as error:
            raise InputError(f'cannot write {self.path} ({error.strerror}): check the free '
                             'space') from error

    def finish(self) -> Path:
        """Write the records that have a prediction in the chosen format; its file's path."""
        writers: dict[str, Callable] = {'jsonl': jsonl, 'coco': coco, 'csv': csv_lines}

        def write(file) -> None:
            for text in writers[self.format](self._predictions):
                file.write(text.encode(errors='surrogateescape'))

        atomic_write(self.result, write)
        self.count = sum(1 for _ in self._predictions())
        self.path.unlink()
        return self.result

    def _predictions(self) -> Iterator[dict]:
        return (record for record in self.done() if 'error' not in record)

    def _cut_unfinished_line(self) -> None:
        """Remove what a process that was killed has not written to the end."""
        with open(self.path, 'rb+') as file:
            end = 0
            for line in file:
                end += len(line) if line.endswith(b'\n') else 0
            file.truncate(end)


def jsonl(records: Callable[[], Iterator[dict]]) -> Iterator[str]:
    """A JSON object on each line."""
    for record in records():
        yield json.dumps(record) + '\n'


def csv_lines(records: Callable[[], Iterator[dict]]) -> Iterator[str]:
    """A header and a line for each picture; cells are empty where nothing is known."""
    yield _csv_line(COLUMNS)
    for record in records():
        yield _csv_line([record['file'], record['width'], record['height'],
                         *(record['box'] or [None] * 4),
                         record['label'], record['class'], record['score'], record['mask']])


def _csv_line(values: Iterable) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerow(values)
    return text.getvalue()


def coco(records: Callable[[], Iterator[dict]]) -> Iterator[str]:
    """The format of COCO's annotations: images, annotations with boxes (x, y, width, height) and
    run-length encoded masks, categories. A category's id is its label + 1; without a classifier all
    objects are of category 1, `object`. A picture's id is its number, from 1.

    `segmentation` is the part of the mask that the box encloses. Since the box is found in the
    network's map, its sides may differ from those of the part by a pixel of that map. `score` is
    the probability of the class, 1.0 without a classifier."""
    yield '{"images": ['
    for number, record in enumerate(records(), 1):
        yield (',\n' if number > 1 else '') + json.dumps({
            'id': number, 'file_name': record.get('name', record['file']), 'width': record['width'],
            'height': record['height']})
    yield '],\n"annotations": ['
    count, categories = 0, {}
    for number, record in enumerate(records(), 1):
        if record['box']:
            count += 1
            category = 1 if record['label'] is None else record['label'] + 1
            categories[category] = record['class'] or 'object'
            yield (',\n' if count > 1 else '') + json.dumps(
                {'id': count, 'image_id': number, 'category_id': category, **_object(record)})
    named = [{'id': key, 'name': name} for key, name in sorted(categories.items())]
    yield f'],\n"categories": {json.dumps(named)}}}\n'


def _object(record: dict) -> dict:
    x0, y0, x1, y1 = record['box']
    return {'bbox': [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
            'area': sum(record['segmentation']['counts'][1::2]),
            'segmentation': record['segmentation'], 'iscrowd': 0,
            'score': 1.0 if record['score'] is None else record['score']}


def part_in_box(mask: np.ndarray, box: tuple[float, ...] | None) -> np.ndarray:
    """The connected part of a mask, bool H x W, that has the most pixels in the box."""
    if box is None:
        return np.zeros_like(mask)
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    x0, y0, x1, y1 = (round(value) for value in box)
    counts = np.bincount(parts[y0:y1, x0:x1].ravel(), minlength=2)
    return parts == 1 + counts[1:].argmax()


def run_lengths(mask: np.ndarray) -> dict:
    """A mask, bool H x W -> COCO's run-length encoding: lengths of background and foreground in
    turn, column by column."""
    pixels = mask.ravel(order='F')
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff([0, *changes, pixels.size]).tolist()
    return {'size': list(mask.shape), 'counts': [0] * bool(pixels[0]) + lengths}
