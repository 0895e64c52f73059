"""The tables of an evaluation: Markdown for the screen, CSV by image and by class."""

from collections.abc import Iterator, Sequence

import numpy as np

from tools.judge.analysis import Method
from tools.judge.ground_truth import GroundTruth

SIGNIFICANT = 0.05
TITLES = {'max_box_acc': 'MaxBoxAcc', 'max_box_acc_v2': 'MaxBoxAccV2', 'pxap': 'PxAP',
          'top1': 'Top-1', 'top5': 'Top-5'}
IMAGE_HEADER = ('method', 'name', 'label', 'size', 'iou', 'best_iou', 'correct')
CLASS_HEADER = ('method', 'label', 'images', 'max_box_acc')


def all_tables(content: dict) -> str:
    """The tables of evaluation.json's content, in percent."""
    methods, differences = content['methods'], content['differences']
    metrics = {name: method['metrics'] for name, method in methods.items()}
    titles = titles_of(next(iter(metrics.values())))
    interval = f'{content["confidence"]:.0%} intervals'
    parts = [f'{content["count"]} images, %, with {interval} ({content["resamples"]} bootstrap '
             'resamples of the images)', table('maps', titles, metrics, _estimate)]
    if differences:
        rows = {name: row['metrics'] for name, row in differences.items()}
        parts += [f'Difference to {content["against"]} in percentage points, with {interval} and '
                  'p-value; * = larger than chance',
                  table('maps', titles, rows, _difference), conclusion(differences, titles)]
    if any('mcnemar' in row for row in differences.values()):
        rows = {name: row['mcnemar'] for name, row in differences.items()}
        parts += [f'Images that these maps alone : {content["against"]} alone has right at a fixed '
                  'threshold, and the p-value of the exact McNemar test',
                  table('maps', titles_of(next(iter(rows.values()))), rows, _mcnemar)]
    if 'sizes' in content:
        parts += ['Right boxes by the size of the object, at the threshold in use',
                  size_table(content['sizes'])]
    return '\n\n'.join(parts)


def titles_of(metrics: dict) -> dict[str, str]:
    """Metric -> its column's title; transferred metrics first, each beside the one whose threshold
    was chosen on the test images. MaxBoxAccV2's single deltas are in evaluation.json alone."""
    titles = {}
    for name, title in TITLES.items():
        transferred = f'transferred_{name}'
        if transferred in metrics:
            titles[transferred] = title
            title += ' (chosen on the test images)'
        if name in metrics:
            titles[name] = title
    return {**titles, **{name: f'GT-known at {name.removeprefix("gt_known_")}'
                         for name in metrics if name.startswith('gt_known_')}}


def table(corner: str, titles: dict[str, str], rows: dict[str, dict], cell) -> str:
    """A Markdown table: a row for each method, a column for each title."""
    lines = [f'| {corner} | {" | ".join(titles.values())} |',
             '| --- ' * (len(titles) + 1) + '|']
    for name, row in rows.items():
        lines.append(f'| {name} | {" | ".join(cell(row[column]) for column in titles)} |')
    return '\n'.join(lines)


def _estimate(row: dict | None) -> str:
    if row is None:
        return '-'
    return f'{100 * row["value"]:.2f} [{100 * row["low"]:.1f}, {100 * row["high"]:.1f}]'


def _difference(row: dict) -> str:
    return (f'{100 * row["value"]:+.2f} [{100 * row["low"]:+.1f}, {100 * row["high"]:+.1f}] '
            f'p = {row["p"]:.3f}{" *" if row["p_holm"] < SIGNIFICANT else ""}')


def _mcnemar(row: dict) -> str:
    return f'{row["only_this"]} : {row["only_other"]}, p = {row["p"]:.2g}'


def conclusion(differences: dict, titles: dict[str, str]) -> str:
    """One sentence: which differences are larger than chance."""
    found = {name: [title for metric, title in titles.items()
                    if row['metrics'][metric]['p_holm'] < SIGNIFICANT]
             for name, row in differences.items()}
    text = '; '.join(f'{name} in {", ".join(metrics)}'
                     for name, metrics in found.items() if metrics)
    compared = f", after Holm's correction for {len(found)} methods" if len(found) > 1 else ''
    return (f'Larger than chance (p < {SIGNIFICANT}{compared}, each metric by itself): '
            f'{text or "none"}. All other differences may be chance.')


def size_table(sizes: dict) -> str:
    edges = [f'{100 * edge:.3g} %' for edge in sizes['edges']]
    names = [f'under {edges[0]}', *map(' to '.join, zip(edges, edges[1:], strict=False)),
             f'{edges[-1]} and more']
    titles = {number: f'{name} ({count} images)'
              for number, (name, count) in enumerate(zip(names, sizes['count'], strict=True))}
    return table('area of the box', titles, sizes['methods'], _estimate)


def image_rows(methods: dict[str, Method], truths: Sequence[GroundTruth]) -> Iterator[tuple]:
    """images.csv: each method's IoU at the threshold in use, and the best at any threshold."""
    for method, result in methods.items():
        for truth, iou, best in zip(truths, result.boxes.iou, result.boxes.best_iou, strict=True):
            yield (method, truth.name, '' if truth.label is None else truth.label,
                   f'{truth.object_size:.4f}', f'{iou:.4f}', f'{best:.4f}', int(iou >= 0.5))


def class_rows(methods: dict[str, Method], truths: Sequence[GroundTruth]) -> Iterator[tuple]:
    """classes.csv: the fraction of right boxes at the threshold in use."""
    labels = np.array([truth.label for truth in truths])
    for method, result in methods.items():
        for label in np.unique(labels):
            correct = result.boxes.iou[labels == label] >= 0.5
            yield method, label, len(correct), f'{correct.mean():.4f}'
