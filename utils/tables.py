"""The tables of an evaluation, boxes.csv, classes.csv and sweep.csv, and its printed summary.

Those of SPOL's maps have these names; those of other maps begin with their kind (fused-boxes.csv).
"""

from collections.abc import Iterator, Mapping

import numpy as np

from utils.boxes import CentreCrop
from utils.drawing import sweep_curves
from utils.evaluation import Evaluated
from utils.files import write_bytes, write_csv
from utils.lists import ImageList
from utils.results import RunFolder

BENCHMARK = {'MaxBoxAcc': 'max_box_acc', 'MaxBoxAccV2': 'max_box_acc_v2', 'PxAP': 'pxap'}
TITLES = {'SPOL': 'SPOL', 'deep': 'plain CAM', 'fused': 'fused CAM'}
OTHERS = {'selected': 'chosen on the images of --select', 'paper_threshold': "the paper's"}


def write_tables(run: RunFolder, images: ImageList, crop: CentreCrop,
                 tables: Mapping[str, Evaluated], chosen: int, metrics: Mapping[str, dict]) -> None:
    """Write the tables of each kind of maps: boxes at the threshold number `chosen`, and where the
    list has boxes, classes and the sweep (where `metrics` have one), with sweep.png of all kinds.
    """
    known = images.boxes is not None
    for kind, table in tables.items():
        prefix = '' if kind == 'SPOL' else f'{kind}-'
        write_csv(run.file(f'{prefix}boxes.csv'),
                  ('name', 'x0', 'y0', 'x1', 'y1', 'iou', 'correct'),
                  box_rows(images, table, crop, chosen))
        if known:
            write_csv(run.file(f'{prefix}classes.csv'),
                      ('label', 'images', 'top1', 'top5', 'gt_known'),
                      class_rows(images, table, chosen))
        if sweep := metrics[kind].get('sweep'):
            columns = (np.round(sweep[name], 6) for name in ('thresholds', 'paper', 'strict'))
            write_csv(run.file(f'{prefix}sweep.csv'), ('threshold', 'paper', 'strict'),
                      zip(*columns, strict=True))
    sweeps = {kind: values['sweep'] for kind, values in metrics.items() if 'sweep' in values}
    if sweeps:
        write_bytes(run.file('sweep.png'), sweep_curves(sweeps))


def box_rows(images: ImageList, table: Evaluated, crop: CentreCrop, chosen: int
             ) -> Iterator[tuple]:
    """Each image's box in pixels of the original image, its IoU, and whether it is correct; the
    latter two are empty without ground truth."""
    known = images.boxes is not None
    for number, index in enumerate(table.index):
        corners = ('', '', '', '')
        if table.contour[number, chosen] and (table.has_box[number] or not known):
            box = crop.from_crop(table.box[number, chosen], table.size[number])
            corners = [f'{value:.2f}' for value in box]
        verdict = ('', '')
        if known:
            verdict = f'{table.iou[number, chosen]:.6f}', int(table.correct[number, chosen])
        yield images.name(index), *corners, *verdict


def class_rows(images: ImageList, table: Evaluated, chosen: int) -> Iterator[tuple]:
    """Each class's metrics by the strict count."""
    labels, correct = images.labels[table.index], table.correct[:, chosen]
    for label in np.unique(labels):
        of_class = labels == label
        tops = ('', '')
        if table.hits is not None:
            tops = (table.hits & correct[:, None])[of_class].mean(0).round(6).tolist()
        yield label, of_class.sum(), *tops, round(correct[of_class].mean(), 6)


def print_summary(metrics: Mapping[str, dict], images: ImageList, threshold: float) -> None:
    """Print the metrics of each kind of maps."""
    if images.boxes is None:
        print(f'{images.source} has no boxes: no localization metrics')
        return
    for kind, values in metrics.items():
        print(summary(TITLES[kind], values, threshold))
    values = list(metrics.values())[-1]
    if images.segmentation and values['max_box_acc'] is not None and values['pxap'] is None:
        print('no PxAP: no ground-truth mask has foreground')


def summary(name: str, metrics: dict, threshold: float) -> str:
    """The metrics of `utils.evaluation.summarize` as lines of text."""
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
    intervals = metrics['intervals']
    named = intervals['strict'] | {name: intervals[key] for name, key in BENCHMARK.items()
                                   if key in intervals}
    lines.append(f'  {intervals["confidence"]:.0%} intervals: ' + ', '.join(
        f'{name} {low:.4f} to {high:.4f}' for name, (low, high) in named.items()))
    for key, which in OTHERS.items():
        if key in metrics:
            lines.append(f'  at threshold {metrics[key]["threshold"]}, {which}: '
                         f'{_values(metrics[key]["strict"])} (strict)')
    if 'classification' in metrics:
        lines.append(f'  classifier: {_values(metrics["classification"])}')
    if 'sweep' in metrics:
        sweep = metrics['sweep']
        lines.append(f'  best threshold {sweep["best_threshold"]:.2f}: GT-known '
                     f'{sweep["best"]["strict"]["gt_known"]:.4f} (strict)')
        lines += [f'  {sweep["advice"]}'] if sweep['advice'] else []
    return '\n'.join(lines)


def size_warning(boxes: np.ndarray, metrics: dict, side: int) -> str:
    """A line of text where most boxes, (N, 4), cover nearly all or nothing of the crop, side x
    side, and are not known to be correct; else empty."""
    parts = (boxes[:, 2:].astype(float) - boxes[:, :2]).prod(1) / side ** 2
    for what, odd, change in (('more than 90 %', parts > 0.9, 'higher'),
                              ('less than 1 %', parts < 0.01, 'lower')):
        if odd.sum() > len(odd) / 2 and metrics.get('strict', {}).get('gt_known', 0) < 0.5:
            return (f'\nwarning: {odd.sum()} of {len(odd)} boxes cover {what} of the image: look '
                    f'at show.png; train for more steps, or try a {change} --threshold')
    return ''


def _values(metrics: dict) -> str:
    return ', '.join(f'{name} {value:.4f}' for name, value in metrics.items()
                     if value is not None)
