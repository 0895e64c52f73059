"""The tables of an evaluation, boxes.csv, classes.csv and sweep.csv, and its printed summary.

Those of SPOL's maps have these names; those of other maps begin with their kind (fused-boxes.csv).
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.images import NO_FOREGROUND
from utils.data.lists import ImageList
from utils.localization.boxes import CentreCrop
from utils.localization.protocol import Localization
from utils.outputs.drawing import sweep_curves
from utils.outputs.files import write_bytes, write_text
from utils.outputs.results import RunFolder
from utils.outputs.top1top5 import Hits

BENCHMARK = {'MaxBoxAcc': 'max_box_acc', 'MaxBoxAccV2': 'max_box_acc_v2', 'PxAP': 'pxap'}


class ImageResult(NamedTuple):
    """An image's (H, W), whether a ground-truth box is left in the crop, and its localization."""

    size: tuple[int, int]
    has_box: bool
    localization: Localization


ImageResults = Mapping[int, ImageResult]  # by the image's index


def write_tables(run: RunFolder, images: ImageList, crop: CentreCrop,
                 records: Mapping[str, ImageResults], metrics: Mapping[str, dict],
                 hits: Hits | None = None) -> None:
    """Write the tables of each kind of maps: boxes, and where the list has boxes, classes and the
    sweep (where `metrics` have one), with sweep.png of all kinds."""
    for kind, results in records.items():
        prefix = '' if kind == 'SPOL' else f'{kind}-'
        write_boxes(run.file(f'{prefix}boxes.csv'), images, results, crop)
        if images.boxes is not None:
            write_classes(run.file(f'{prefix}classes.csv'), images, results, hits)
        if 'sweep' in metrics[kind]:
            write_sweep(run.file(f'{prefix}sweep.csv'), metrics[kind]['sweep'])
    sweeps = {kind: values['sweep'] for kind, values in metrics.items() if 'sweep' in values}
    if sweeps:
        write_bytes(run.file('sweep.png'), sweep_curves(sweeps))


def print_summary(metrics: Mapping[str, dict], images: ImageList, threshold: float) -> None:
    """Print the metrics of each kind of maps."""
    if images.boxes is None:
        print(f'{images.source} has no boxes: no localization metrics')
        return
    for kind, values in metrics.items():
        print(summarize(kind if kind == 'SPOL' else f'{kind} CAM', values, threshold))
    values = list(metrics.values())[-1]
    if images.segmentation and values['max_box_acc'] is not None and values['pxap'] is None:
        print(f'no PxAP: {NO_FOREGROUND}')


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
             'ground-truth box in the crop):']
    if metrics['strict'] == metrics['paper']:
        lines.append(f'  {_values(metrics["strict"])} (strict and paper\'s count)')
    else:
        lines += [f'  {_values(metrics["strict"])} (strict count)',
                  f'  {_values(metrics["paper"])} (paper\'s count)']
    values = _values({name: metrics[key] for name, key in BENCHMARK.items()})
    lines += [f'  {values}'] if values else []
    lines += [_interval_line(metrics['intervals'])] if 'intervals' in metrics else []
    if 'selected' in metrics:
        selected = metrics['selected']
        lines.append(f'  at threshold {selected["threshold"]}, chosen on the images of --select: '
                     f'{_values(selected["strict"])} (strict)')
    if 'classification' in metrics:
        lines.append(f'  classifier: {_values(metrics["classification"])}')
    if 'sweep' in metrics:
        sweep = metrics['sweep']
        lines.append(f'  best threshold {sweep["best_threshold"]:.2f}: GT-known '
                     f'{sweep["best"]["strict"]["gt_known"]:.4f} (strict)')
        lines += [f'  {sweep["advice"]}'] if sweep['advice'] else []
    return '\n'.join(lines)


def size_warning(records: ImageResults, metrics: dict, side: int) -> str:
    """A line of text where most boxes cover nearly all or nothing of the crop, `side` x `side`, and
    are not known to be correct; else empty."""
    boxes = [record.localization.box or (0, 0, 0, 0) for record in records.values()]
    parts = np.array([(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]) / side ** 2
    for what, odd, cure in (('more than 90 %', parts > 0.9, 'higher'),
                            ('less than 1 %', parts < 0.01, 'lower')):
        if odd.sum() > len(odd) / 2 and metrics.get('strict', {}).get('gt_known', 0) < 0.5:
            return (f'\nwarning: {odd.sum()} of {len(odd)} boxes cover {what} of the image: look '
                    f'at show.png; train for more steps, or try a {cure} --threshold')
    return ''


def _interval_line(intervals: dict) -> str:
    """The intervals of the strict count and of the benchmark's metrics."""
    found = {**intervals['strict'], **{name: intervals[key] for name, key in BENCHMARK.items()
                                       if key in intervals}}
    values = ', '.join(f'{name} {low:.4f} to {high:.4f}' for name, (low, high) in found.items())
    return f'  {intervals["confidence"]:.0%} intervals: {values}'


def _values(metrics: dict) -> str:
    return ', '.join(f'{name} {value:.4f}' for name, value in metrics.items()
                     if value is not None)
