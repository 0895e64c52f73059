"""Evaluate the score maps of any methods as the WSOL benchmark does, with confidence intervals.

    python tools/evaluate_maps.py maps/ --list dataset/CUB_200_2011/val.txt
    python tools/evaluate_maps.py cam=maps/a spol=maps/b --list val.txt      one table of several
    python tools/evaluate_maps.py maps/ --metadata metadata/CUB/test         the benchmark's files
    python tools/evaluate_maps.py maps/ --metadata metadata/OpenImages/test --masks OpenImages
    python tools/evaluate_maps.py maps/a --list test.txt --select maps/b --select_list val.txt

A folder holds a map of any size for each image, as `--save_maps` of cam/test and seg/test writes
them: <image name>.npy or .png. --list is a list in the CUB layout, with image/ beside it, and
segmentation/ where there are ground-truth masks. docs/judge.md explains the formats and all tables.

Writes evaluation.json and, where there are boxes, images.csv, classes.csv and evaluation.png to
--out.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.errors import InputError, run  # isort: skip  # says how to install what is missing below

import cv2
import numpy as np

from tools import score_maps
from tools.results import markdown
from tools.score_maps import BASELINES, GroundTruth, find_maps, from_list, from_metadata
from utils import bootstrap, drawing, evaluation, metrics
from utils.arguments import Parser, fraction, positive_int
from utils.boxes import largest_box
from utils.files import write_bytes, write_csv, write_json, write_png
from utils.images import read_image, resize
from utils.resampling import CONFIDENCE, RESAMPLES, resampling_weights, wilson
from utils.results import versions
from utils.top1top5 import read_top1top5

SCHEMA_VERSION = 1
SIGNIFICANT = 0.05
SIZE_EDGES = (0.1, 0.3, 0.6)  # of an object's area, as a fraction of the image's
CHUNK = 8                     # images that a process gets at once
TITLES = {'max_box_acc': 'MaxBoxAcc', 'max_box_acc_v2': 'MaxBoxAccV2', 'pxap': 'PxAP',
          'top1': 'Top-1', 'top5': 'Top-5'}
DELTAS = [f'max_box_acc_v2_iou_{delta}' for delta in evaluation.V2_DELTAS]
COLUMNS = ['max_box_acc', *DELTAS, 'top1', 'top5']  # of `evaluation.correct_boxes`


class Method(NamedTuple):
    """What is kept of the maps of N images; the last three are those of boxes.

    samples: each metric, and that of each of R resamples, (1 + R,).
    right: for each metric at a fixed threshold, whether an image is right, bool (N,).
    content: what evaluation.json has of the method.
    threshold: the one in use, the transferred one if there is one, else MaxBoxAcc's.
    iou, best_iou: (N,), at the threshold in use, and the highest at any.
    """

    samples: dict[str, np.ndarray]
    right: dict[str, np.ndarray]
    content: dict[str, Any]
    threshold: float | None = None
    iou: np.ndarray | None = None
    best_iou: np.ndarray | None = None


def main() -> None:
    args = parse()
    cv2.setNumThreads(0)
    truths = from_list(args.list) if args.list else from_metadata(args.metadata, args.masks)
    others, others_maps, hits = [], {}, None
    if args.select:
        others = from_list(args.select_list) if args.select_list else (
            from_metadata(args.select_metadata))
        others_maps = {name: find_maps(folder, others) for name, folder in args.select.items()}
    check_truths(args, truths, others)
    if args.top1top5:
        found = read_top1top5(args.top1top5, [truth.name for truth in truths])
        hits = np.array([found[truth.name] for truth in truths])
    sources = {name: find_maps(folder, truths) for name, folder in args.maps.items()}
    sources |= {name: name for name in BASELINES if args.baselines}
    weights, methods = resampling_weights(len(truths)), {}
    with ProcessPoolExecutor(args.jobs, get_context('forkserver'), cv2.setNumThreads, (0,)) as pool:
        map_images = partial(pool.map, chunksize=CHUNK) if args.jobs > 1 else map
        measure = partial(score_maps.measure_all, map_images=map_images)
        for name, source in sources.items():
            levels = None
            if others:
                table = measure(others_maps.get(name, name), others, label=f'{name}, selection')
                levels = evaluation.best_levels(table)
            table = measure(source, truths, label=name, hits=hits)
            methods[name] = analyse(table, weights, args.thresholds, levels)
    if not methods[args.against].samples:
        raise InputError('nothing to report: no ground-truth mask has foreground')
    content = report(methods, truths, args.against, args.quartiles)
    print(tables(content))
    write(args, content, methods, truths, sources)


def parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('maps', nargs='+', metavar='[NAME=]FOLDER', help='score maps, one folder for each method')
    truth = parser.add_mutually_exclusive_group(required=True).add_argument
    truth('--list', type=Path, help='an image list: name,label,xmin ymin xmax ymax')
    truth('--metadata', type=Path, help="a folder with the benchmark's files")
    add('--masks', type=Path, help='where the masks of --metadata are (default: in its folder)')
    add('--thresholds', type=fraction, nargs='*', default=[0.1, 0.15, 0.2],
        help='GT-known is reported at these, rounded to thousandths')
    add('--top1top5', type=Path, help="a classifier's hits: the cls stage's top1top5.npy")
    add('--against', metavar='NAME', help='compare with this method (default: the first)')
    add('--baselines', action='store_true', help='also evaluate what needs no training: the whole '
        'image, centre box, centre Gaussian and noise')
    add('--select', nargs='+', metavar='[NAME=]FOLDER', default=[],
        help='choose the thresholds on these maps: a folder for each method')
    truth = parser.add_mutually_exclusive_group().add_argument
    truth('--select_list', type=Path, help='the image list of --select')
    truth('--select_metadata', type=Path, help="a folder with the benchmark's files, for --select")
    add('--quartiles', action='store_true', help="sizes by the list's quartiles")
    add('--worst', type=positive_int, metavar='N',
        help='draw the N images of --list of lowest IoU of each method to worst-NAME.png')
    add('--jobs', type=positive_int, default=len(os.sched_getaffinity(0)), help='processes')
    add('--out', type=Path, default=Path('evaluation'), help='the output folder')
    args = parser.parse_args()
    names = [name for name, _ in folders_of(args.maps)] + list(BASELINES) * args.baselines
    args.maps, named = dict(folders_of(args.maps)), dict(folders_of(args.select))
    args.against = args.against or names[0]
    if len(set(names)) < len(names):
        parser.error(f'two methods have the same name, of {", ".join(names)}: give NAME=FOLDER')
    if args.against not in names:
        parser.error(f'--against {args.against}: choose one of {", ".join(names)}')
    if len(args.maps) == len(named) == 1:
        named = dict(zip(args.maps, named.values(), strict=True))
    if named.keys() != (args.maps.keys() if args.select_list or args.select_metadata else set()):
        parser.error('give --select with the same names as the methods, and either --select_list '
                     'or --select_metadata')
    args.select = named
    if args.worst and not args.list:
        parser.error('--worst draws the images beside --list: give it instead of --metadata')
    return args


def folders_of(texts: list[str]) -> list[tuple[str, str]]:
    """(name, folder) of each [NAME=]FOLDER."""
    return [(name, folder or name) for name, _, folder in (text.partition('=') for text in texts)]


def check_truths(args: argparse.Namespace, truths: list[GroundTruth], others: list[GroundTruth]
                 ) -> None:
    """Refuse flags that need boxes where there are none, and thresholds chosen on test images."""
    needs_boxes = args.select or args.top1top5 or args.worst or args.quartiles
    if needs_boxes and any(truth.boxes is None for truth in (truths[0], *others[:1])):
        raise InputError('--select, --top1top5, --worst and --quartiles need boxes: there are '
                         'masks alone')
    tested = {identity(truth) for truth in truths} if others else set()
    shared = [other.name for other in others if identity(other) in tested]
    if shared:
        raise InputError(f'--select: {len(shared)} images are also tested, such as {shared[0]}: '
                         'choose the thresholds on other images')


def identity(truth: GroundTruth) -> str:
    """The content of the image; its name where there is no file."""
    return hashlib.sha256(truth.image.read_bytes()).hexdigest() if truth.image else truth.name


def analyse(table: evaluation.Evaluated, weights: np.ndarray, thresholds: Sequence[float],
            levels: np.ndarray | None) -> Method:
    """`levels`: those chosen on other images, of `best_levels`; None if there are none."""
    samples = evaluation.benchmark(table, weights, thresholds, levels)
    right, content, of_boxes = {}, {}, []
    if table.levels is not None:
        correct, ious = evaluation.correct_boxes(table), table.levels[:, 0] / metrics.IOU_UNITS
        right = {f'gt_known_{t}': correct[:, 0, metrics.level_of(t)] for t in thresholds}
        chosen = {'best': evaluation.best_levels(table)}
        if levels is not None:
            chosen = {'transferred': levels, **chosen}
            at = [*levels, levels[0], levels[0]]
            right |= {f'transferred_{name}': correct[:, column, at[column]]
                      for column, name in enumerate(COLUMNS[:correct.shape[1]])}
        content['curve'] = correct[:, 0].mean(0)[metrics.LEVEL_OF_STEP].tolist()
        content['cam_threshold'] = {}
        for which, found in chosen.items():
            first, *v2 = map(metrics.threshold_of, found)
            content['cam_threshold'][which] = {'max_box_acc': first, 'max_box_acc_v2': dict(
                zip(map(str, evaluation.V2_DELTAS), v2, strict=True))}
        level = next(iter(chosen.values()))[0]
        of_boxes = [metrics.threshold_of(level), ious[:, level], ious.max(1)]
    content['metrics'] = {metric: share(right[metric]) if metric in right
                          else bootstrap.estimate(values) for metric, values in samples.items()}
    return Method(samples, right, content, *of_boxes)


def share(right: np.ndarray) -> dict[str, float]:
    """A share of images at a fixed threshold, with Wilson's interval; right: bool (N,)."""
    low, high = wilson(int(right.sum()), len(right))
    return {'value': float(right.mean()), 'low': low, 'high': high}


def report(methods: dict[str, Method], truths: Sequence[GroundTruth], against: str,
           quartiles: bool) -> dict:
    """evaluation.json: everything that the tables show. Metrics are fractions."""
    content: dict = {
        'schema_version': SCHEMA_VERSION, 'count': len(truths), 'against': against,
        'confidence': CONFIDENCE, 'resamples': RESAMPLES,
        'methods': {name: method.content for name, method in methods.items()},
        'differences': differences(methods, against, len(truths))}
    if truths[0].boxes is not None:
        sizes = [object_size(truth) for truth in truths]
        edges = np.quantile(sizes, [0.25, 0.5, 0.75]) if quartiles else np.array(SIZE_EDGES)
        groups = np.searchsorted(edges, sizes, side='right')
        counts = np.bincount(groups, minlength=len(edges) + 1).tolist()
        content['sizes'] = {'edges': edges.tolist(), 'count': counts, 'methods': {
            name: [share(method.iou[groups == group] >= 0.5) if count else None
                   for group, count in enumerate(counts)] for name, method in methods.items()}}
    return content


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


def object_size(truth: GroundTruth) -> float:
    """The area of the largest box, clipped to the image, as a fraction of the image's."""
    height, width = truth.size
    boxes = truth.boxes.clip(0, [width, height] * 2)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1).max() / (height * width)


def tables(content: dict) -> str:
    """The tables of evaluation.json's content, in percent."""
    rows = {name: method['metrics'] for name, method in content['methods'].items()}
    found, titles = rows[content['against']], {}
    for name, title in TITLES.items():
        chosen_here = f'transferred_{name}' in found
        titles |= {f'transferred_{name}': title,
                   name: title + ' (chosen on the test images)' * chosen_here}
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
    texts: dict[str, dict] = {}
    for name, found in rows.items():
        texts[name] = {}
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


def write(args: argparse.Namespace, content: dict, methods: dict[str, Method],
          truths: list[GroundTruth], sources: dict) -> None:
    """Write all files."""
    arguments = {name: str(value) if isinstance(value, Path) else value
                 for name, value in vars(args).items() if name != 'maps'}
    write_json(args.out / 'evaluation.json', {
        **content, 'maps': args.maps, 'arguments': arguments, 'versions': versions()})
    if truths[0].boxes is not None:
        known = [(truth.name, truth.label, f'{object_size(truth):.4f}') for truth in truths]
        images = [(name, *of_image, f'{iou:.4f}', f'{best:.4f}', int(iou >= 0.5))
                  for name, method in methods.items() for of_image, iou, best in zip(
                      known, method.iou, method.best_iou, strict=True)]
        write_csv(args.out / 'images.csv',
                  ('method', 'name', 'label', 'size', 'iou', 'best_iou', 'correct'), images)
        labels = np.array([truth.label for truth in truths])
        classes = [(name, label, (labels == label).sum(),
                    f'{(method.iou[labels == label] >= 0.5).mean():.4f}')
                   for name, method in methods.items() for label in np.unique(labels)]
        write_csv(args.out / 'classes.csv', ('method', 'label', 'images', 'max_box_acc'), classes)
        figure, axes = drawing.threshold_axes('boxes with IoU >= 0.5')
        for name, method in methods.items():
            axes.plot(metrics.THRESHOLDS, method.content['curve'], label=name)
        axes.legend()
        write_bytes(args.out / 'evaluation.png', drawing.png_of(figure))
    for name in args.maps if args.worst else ():
        write_png(args.out / f'worst-{name.strip("/").replace("/", "-")}.png',
                  worst_sheet(methods[name], truths, sources[name], args.worst))
    print(f'\nwrote {args.out / "evaluation.json"}')


def worst_sheet(method: Method, truths: list[GroundTruth], maps: list[Path], count: int
                ) -> np.ndarray:
    """The `count` images of lowest IoU at the threshold in use, RGB: their true boxes and the one
    found, their maps, and what of these exceeds the threshold."""
    rows = []
    for index in np.lexsort((method.best_iou, method.iou))[:count]:
        truth, image = truths[index], read_image(truths[index].image)
        score_map = score_maps.at_benchmark_size(score_maps.read_score_map(maps[index]))
        score_map = resize(metrics.normalise_map(score_map), image.shape[:2])
        box = largest_box(score_map, method.threshold)
        rows.append(drawing.Row(
            [drawing.draw_boxes(image, truth.boxes, box), drawing.heatmap(image, score_map),
             drawing.outline(image, score_map > method.threshold)],
            f'{truth.name}: IoU {method.iou[index]:.2f}, best {method.best_iou[index]:.2f}'))
    return drawing.contact_sheet(rows, ['truth and box', 'score map', 'above the threshold'], 220)


if __name__ == '__main__':
    run(main)
