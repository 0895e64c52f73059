"""Evaluate the score maps of any methods as the WSOL benchmark does, with confidence intervals.

    python tools/evaluate_maps.py maps/ --list dataset/CUB_200_2011/val.txt
    python tools/evaluate_maps.py cam=maps/a spol=maps/b --list val.txt      one table of several
    python tools/evaluate_maps.py maps/a --list test.txt --select maps/b --select_list val.txt

A folder holds a map of any size for each image, <image name>.npy or .png. A list has image/ beside
it, and segmentation/ if there are masks. docs/judge.md explains the formats and all tables.

Writes evaluation.json and, where there are boxes, images.csv and evaluation.png to --out.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from tools.results import markdown
from tools.score_maps import BASELINES, find_maps, measure_all, read_truth
from utils import bootstrap, evaluation, metrics
from utils.arguments import Parser, fraction, positive_int
from utils.errors import InputError, run
from utils.files import write_csv, write_json
from utils.lists import ImageList, check_selection
from utils.resampling import CONFIDENCE, RESAMPLES, resampling_weights, wilson
from utils.results import versions
from utils.top1top5 import read_top1top5

SIGNIFICANT = 0.05
SIZE_EDGES = (0.1, 0.3, 0.6)  # of an object's area, as a fraction of the image's
TITLES = {'max_box_acc': 'MaxBoxAcc', 'max_box_acc_v2': 'MaxBoxAccV2', 'pxap': 'PxAP',
          'top1': 'Top-1', 'top5': 'Top-5'}
COLUMNS = ['max_box_acc', *(f'max_box_acc_v2_iou_{delta}' for delta in evaluation.V2_DELTAS),
           'top1', 'top5']  # of `evaluation.correct_boxes`


class Method(NamedTuple):
    """What is kept of the maps of N images."""

    samples: dict[str, np.ndarray]  # each metric, and that of each of R resamples, (1 + R,)
    right: dict[str, np.ndarray]    # those at a fixed threshold: whether right, bool (N,)
    content: dict[str, Any]         # what evaluation.json has of the method
    iou: np.ndarray | None          # (N,), at the threshold in use; None without boxes


def main() -> None:
    args = parse()
    cv2.setNumThreads(0)
    images, selection, hits = read_truth(args.list), None, None
    if images.boxes is None and (args.select or args.top1top5):
        raise InputError(f'--select and --top1top5 need boxes: {args.list} has none')
    if args.select:
        selection = read_truth(args.select_list)
        check_selection(images, selection)
    if args.top1top5:
        found = read_top1top5(Path(args.top1top5), images.names)
        hits = np.array([found[name] for name in images.names])
    sources = {name: find_maps(folder, images) for name, folder in args.maps.items()}
    others = {name: find_maps(folder, selection) for name, folder in args.select.items()}
    sources |= {name: repeat(name) for name in BASELINES if args.baselines}
    weights, methods = resampling_weights(len(images)), {}
    with ProcessPoolExecutor(args.jobs, get_context('forkserver'), cv2.setNumThreads, (0,)) as pool:
        map_images = partial(pool.map, chunksize=8) if args.jobs > 1 else map
        for name, source in sources.items():
            levels = None
            if selection:
                levels = evaluation.best_levels(measure_all(
                    others.get(name, source), selection, map_images, f'{name}, selection'))
            table = measure_all(source, images, map_images, name)._replace(hits=hits)
            methods[name] = analyse(table, weights, args.thresholds, levels)
    if not methods[args.against].samples:
        raise InputError('nothing to report: no ground-truth mask has foreground')
    sizes = None if images.boxes is None else [
        object_size(*pair) for pair in zip(images.boxes, table.size.tolist(), strict=True)]
    content = report(methods, args.against, len(images), sizes)
    print(tables(content))
    write_json(Path(args.out, 'evaluation.json'), {
        **content, 'arguments': vars(args), 'versions': versions()})
    if sizes:
        write_boxes(Path(args.out), methods, images, sizes)
    print(f'\nwrote the files in {args.out}')


def parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('maps', nargs='+', type=named_folder, metavar='[NAME=]FOLDER', help="a method's maps")
    add('--list', required=True, help='an image list: name,label,xmin ymin xmax ymax')
    add('--thresholds', type=fraction, nargs='*', default=[0.1, 0.15, 0.2], help='of GT-known')
    add('--top1top5', help="a classifier's hits: the cls stage's top1top5.npy")
    add('--against', metavar='NAME', help='compare with this method (default: the first)')
    add('--baselines', action='store_true', help=f'also evaluate {", ".join(BASELINES)}')
    add('--select', nargs='+', type=named_folder, metavar='[NAME=]FOLDER', default=[],
        help='choose the thresholds on these maps')
    add('--select_list', help='the image list of --select')
    add('--jobs', type=positive_int, default=len(os.sched_getaffinity(0)), help='processes')
    add('--out', default='evaluation', help='the output folder')
    args = parser.parse_args()
    names = [name for name, _ in args.maps] + list(BASELINES) * args.baselines
    args.maps, args.select = dict(args.maps), dict(args.select)
    args.against = args.against or names[0]
    if len(set(names)) < len(names):
        parser.error(f'two methods have the same name, of {", ".join(names)}: give NAME=FOLDER')
    if args.against not in names:
        parser.error(f'--against {args.against}: choose one of {", ".join(names)}')
    if len(args.maps) == len(args.select) == 1:
        args.select = dict(zip(args.maps, args.select.values(), strict=True))
    if args.select.keys() != (args.maps.keys() if args.select_list else set()):
        parser.error('give --select with the same names as the methods, and --select_list')
    return args


def named_folder(text: str) -> tuple[str, str]:
    """The name and the folder in [NAME=]FOLDER."""
    name, _, folder = text.partition('=')
    return name, folder or name


def analyse(table: evaluation.Evaluated, weights: np.ndarray, thresholds: list[float],
            transferred: np.ndarray | None) -> Method:
    """`transferred`: the `best_levels` of other images; None if there are none."""
    samples = evaluation.benchmark(table, weights, thresholds, transferred)
    right, content, iou = {}, {}, None
    if table.levels is not None:
        correct, best = evaluation.correct_boxes(table), evaluation.best_levels(table)
        right = {f'gt_known_{t}': correct[:, 0, metrics.level_of(t)] for t in thresholds}
        content['curve'] = correct[:, 0].mean(0)[metrics.LEVEL_OF_STEP].tolist()
        content['cam_threshold'] = {'best': thresholds_of(best)}
        if transferred is not None:
            content['cam_threshold']['transferred'] = thresholds_of(transferred)
            levels = [*transferred, transferred[0], transferred[0]]
            right |= {f'transferred_{name}': correct[:, column, levels[column]]
                      for column, name in enumerate(COLUMNS[:correct.shape[1]])}
            best = transferred
        iou = table.levels[:, 0, best[0]] / metrics.IOU_UNITS
    content['metrics'] = {metric: share(right[metric]) if metric in right
                          else bootstrap.estimate(values) for metric, values in samples.items()}
    return Method(samples, right, content, iou)


def thresholds_of(levels: np.ndarray) -> dict[str, Any]:
    """What evaluation.json has of `best_levels`."""
    first, *v2 = map(metrics.threshold_of, levels)
    return {'max_box_acc': first,
            'max_box_acc_v2': dict(zip(map(str, evaluation.V2_DELTAS), v2, strict=True))}


def share(right: np.ndarray) -> dict[str, float]:
    """A share of images at a fixed threshold, with Wilson's interval; right: bool (N,)."""
    low, high = wilson(int(right.sum()), len(right))
    return {'value': float(right.mean()), 'low': low, 'high': high}


def report(methods: dict[str, Method], against: str, count: int, sizes: list | None) -> dict:
    """evaluation.json: everything that the tables show. Metrics are fractions."""
    content = {
        'schema_version': 1, 'count': count, 'against': against, 'confidence': CONFIDENCE,
        'resamples': RESAMPLES,
        'methods': {name: method.content for name, method in methods.items()},
        'differences': differences(methods, against, count)}
    if sizes:
        groups = np.searchsorted(SIZE_EDGES, sizes, side='right')
        counts = np.bincount(groups, minlength=len(SIZE_EDGES) + 1).tolist()
        content['sizes'] = {'edges': list(SIZE_EDGES), 'count': counts, 'methods': {
            name: [share(method.iou[groups == group] >= 0.5) if counts[group] else None
                   for group in range(len(counts))] for name, method in methods.items()}}
    return content


def object_size(boxes: np.ndarray, size: list[int]) -> float:
    """The area of the largest box, clipped to the image, as a fraction of the image's."""
    boxes = boxes.clip(0, size[::-1] * 2)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1).max() / (size[0] * size[1])


def differences(methods: dict[str, Method], against: str, count: int) -> dict:
    """Of each other method: the metrics' differences. At fixed thresholds their p-values are those
    of the exact McNemar test. Holm's method adjusts p-values for the number of methods."""
    content, reference = {}, methods[against]
    for name, method in methods.items():
        if name != against:
            tests = {metric: bootstrap.mcnemar(right, reference.right[metric])
                     for metric, right in method.right.items()}
            found = {metric: bootstrap.paired_difference(samples, reference.samples[metric], count)
                     | tests.get(metric, {}) for metric, samples in method.samples.items()}
            content[name] = {'metrics': found, 'mcnemar': tests}
    for metric in reference.samples:
        rows = [other['metrics'][metric] for other in content.values()]
        p_values = [row['p'] for row in rows]
        adjusted = p_values if None in p_values else bootstrap.holm(p_values)
        for row, value in zip(rows, adjusted, strict=True):
            row['p_holm'] = value
    return content


def tables(content: dict) -> str:
    """The tables of evaluation.json's content, in percent."""
    rows = {name: method['metrics'] for name, method in content['methods'].items()}
    found, titles = rows[content['against']], {}
    for name, title in TITLES.items():
        note = ' (chosen on the test images)' if f'transferred_{name}' in found else ''
        titles |= {f'transferred_{name}': title, name: title + note}
    titles |= {name: name.replace('gt_known_', 'GT-known at ') for name in found
               if name.startswith('gt_known_')}
    parts = [f'{content["count"]} images, %, with {content["confidence"]:.0%} intervals',
             table('maps', titles, rows)]
    if content['differences']:
        note = f'* = significant, p < {SIGNIFICANT} after Holm\'s correction, each metric by itself'
        if content['count'] < bootstrap.MIN_IMAGES:
            note = f'without p-values, as there are fewer than {bootstrap.MIN_IMAGES} images'
        rows = {name: other['metrics'] for name, other in content['differences'].items()}
        parts += [f'Difference to {content["against"]} in percentage points; {note}',
                  table('maps', titles, rows, '+')]
    if 'sizes' in content:
        edges = [0, *content['sizes']['edges'], 1]
        titles = {group: f'{100 * edges[group]:.3g} to {100 * edges[group + 1]:.3g} % ({count} '
                         'images)' for group, count in enumerate(content['sizes']['count'])}
        rows = {name: dict(enumerate(of_groups))
                for name, of_groups in content['sizes']['methods'].items()}
        parts += ['Right boxes by the size of the object, at the threshold in use',
                  table('area of the box', titles, rows)]
    return '\n\n'.join(parts)


def table(corner: str, titles: dict, rows: dict[str, dict], sign: str = '') -> str:
    """A Markdown table of metrics or, with `sign` +, of differences; at fixed thresholds also how
    many images either method alone has right."""
    texts = {name: {} for name in rows}
    for name, found in rows.items():
        for column, row in found.items():
            if row:
                value, low, high = (100 * row[key] for key in ('value', 'low', 'high'))
                text = f'{value:{sign}.2f} [{low:{sign}.1f}, {high:{sign}.1f}]'
                if 'only_this' in row:
                    text += f' {row["only_this"]} : {row["only_other"]}'
                if row.get('p') is not None:
                    text += f' p = {row["p"]:.2g}{" *" if row["p_holm"] < SIGNIFICANT else ""}'
                texts[name][column] = text
    return markdown(corner, titles, texts)


def write_boxes(out: Path, methods: dict[str, Method], images: ImageList, sizes: list) -> None:
    """Write images.csv and evaluation.png."""
    from matplotlib.figure import Figure  # slow

    rows = [(name, *known, f'{size:.4f}', f'{iou:.4f}', int(iou >= 0.5))
            for name, method in methods.items() for *known, size, iou in zip(
                images.names, images.labels, sizes, method.iou, strict=True)]
    write_csv(out / 'images.csv', ('method', 'name', 'label', 'size', 'iou', 'correct'), rows)
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    axes.set(xlabel='threshold', ylabel='boxes with IoU >= 0.5', xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    for name, method in methods.items():
        axes.plot(metrics.THRESHOLDS, method.content['curve'], label=name)
    axes.legend()
    figure.savefig(out / 'evaluation.png', dpi=120)


if __name__ == '__main__':
    run(main)
