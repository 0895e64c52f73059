"""The tables of an evaluation: boxes.csv, classes.csv and sweep.csv, and its printed summary."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from utils.data.lists import ImageList
from utils.localization.boxes import CentreCrop
from utils.localization.protocol import Localization
from utils.outputs.files import write_text
from utils.outputs.top1top5 import Hits

# An image's index -> its (H, W), whether a ground-truth box is left in the crop, and its result.
ImageResults = Mapping[int, tuple[tuple[int, int], bool, Localization]]


def write_boxes(path: Path, images: ImageList, records: ImageResults, crop: CentreCrop) -> None:
    """boxes.csv: each image's box in pixels of the original image, its IoU, and whether it is
    correct; the latter two are empty without ground truth."""
    write_csv(path, ('name', 'x0', 'y0', 'x1', 'y1', 'iou', 'correct'),
              (_box_row(images, index, *records[index], crop) for index in sorted(records)))


def _box_row(images: ImageList, index: int, size: tuple[int, int], has_box: bool,
             result: Localization, crop: CentreCrop) -> tuple:
    known = images.boxes is not None
    corners = ('', '', '', '')
    if result.box is not None and (has_box or not known):
        corners = [f'{value:.2f}' for value in crop.from_crop(result.box, size)]
    verdict = (f'{result.iou:.6f}', int(result.correct)) if known else ('', '')
    return images.name(index), *corners, *verdict


def write_classes(path: Path, images: ImageList, records: ImageResults, hits: Hits | None) -> None:
    """classes.csv: each class's metrics by the strict count."""
    write_csv(path, ('label', 'images', 'top1', 'top5', 'gt_known'),
              _class_rows(images, records, hits))


def _class_rows(images: ImageList, records: ImageResults, hits: Hits | None) -> Iterator[tuple]:
    indices = sorted(records)
    labels = images.labels[indices]
    correct = np.array([records[index][2].correct for index in indices], dtype=bool)
    named = None if hits is None else np.array(
        [hits[images.name(index)] for index in indices]).T & correct
    for label in np.unique(labels):
        chosen = labels == label
        tops = ('', '') if named is None else named[:, chosen].mean(1).round(6).tolist()
        yield label, chosen.sum(), *tops, round(correct[chosen].mean(), 6)


def write_sweep(path: Path, sweep: dict) -> None:
    """sweep.csv: GT-known at all thresholds, by both counts."""
    columns = (np.round(sweep[name], 6) for name in ('thresholds', 'paper', 'strict'))
    write_csv(path, ('threshold', 'paper', 'strict'), zip(*columns, strict=True))


def write_csv(path: Path, header: tuple, rows: Iterable[tuple]) -> None:
    """Write a header and rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([header, *rows])
    write_text(path, text.getvalue())


def summarize(name: str, metrics: dict, threshold: float) -> str:
    """The metrics of `EvaluationMetrics.compute` as lines of text."""
    lines = [f'{name} at threshold {threshold}, {metrics["count"]} images '
             f'({metrics["no_contour"]} without a contour, {metrics["no_box"]} without a '
             'ground-truth box in the crop):',
             f'  strict count: {_values(metrics["strict"])}',
             f'  paper\'s count: {_values(metrics["paper"])}']
    field = {'MaxBoxAcc': 'max_box_acc', 'MaxBoxAccV2': 'max_box_acc_v2', 'PxAP': 'pxap'}
    values = _values({name: metrics[key] for name, key in field.items()})
    lines += [f'  {values}'] if values else []
    if 'classification' in metrics:
        lines.append(f'  classifier: {_values(metrics["classification"])}')
    if 'sweep' in metrics:
        sweep = metrics['sweep']
        lines += [f'  threshold {sweep["thresholds"][k]:.2f}: GT-known {sweep["strict"][k]:.4f} '
                  f'strict, {sweep["paper"][k]:.4f} paper'
                  for k in range(0, len(sweep['thresholds']), 10)]
        lines.append(f'  best threshold {sweep["best_threshold"]:.2f}: GT-known '
                     f'{sweep["best"]["strict"]["gt_known"]:.4f} (strict)')
        lines += [f'  {sweep["advice"]}'] if sweep['advice'] else []
    return '\n'.join(lines)


def _values(metrics: dict) -> str:
    return ', '.join(f'{name} {value:.4f}' for name, value in metrics.items()
                     if value is not None)
