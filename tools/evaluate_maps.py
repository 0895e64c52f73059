"""Evaluate the score maps of any methods as the WSOL benchmark does, with confidence intervals.

    python tools/evaluate_maps.py maps/ --list dataset/CUB_200_2011/val.txt
    python tools/evaluate_maps.py cam=maps/a spol=maps/b --list val.txt      one table of several
    python tools/evaluate_maps.py maps/ --metadata metadata/CUB/test         the benchmark's files
    python tools/evaluate_maps.py maps/ --metadata metadata/OpenImages/test --masks OpenImages
    python tools/evaluate_maps.py maps/a --list test.txt --select maps/b --select_list val.txt

A folder holds a map of any size for each image, as `--save_maps` of cam/test and seg/test writes
them: <image name>.npy or .png. --list is a list in the CUB layout, with image/ beside it, and
segmentation/ where there are ground-truth masks. docs/judge.md explains the formats and all tables.

Writes evaluation.json and, where there are boxes, images.csv, classes.csv (where there are labels)
and evaluation.png to --out.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.errors import InputError, run  # isort: skip  # says how to install what is missing below

import cv2
import numpy as np

from tools import score_maps
from tools.score_maps import BASELINES, GroundTruth, find_maps, from_list, from_metadata
from utils import bootstrap, drawing, evaluation, metrics
from utils.arguments import Parser, fraction, nonnegative_int, positive_int
from utils.boxes import largest_box
from utils.files import write_bytes, write_csv, write_json, write_png
from utils.images import read_image, resize
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
    """What is kept of the maps of N images; without boxes, `samples` alone.

    samples: each metric, and that of each of R resamples, (1 + R,).
    right: for each metric at a fixed threshold, whether an image is right, bool (N,).
    thresholds: those of `best_levels`, transferred ones first; the first of all is in use.
    iou, best_iou: (N,), at the threshold in use, and the highest at any threshold.
    curve: (1000,), MaxBoxAcc over the threshold.
    """

    samples: dict[str, np.ndarray]
    right: dict[str, np.ndarray] = {}
    thresholds: dict[str, list[float]] = {}
    iou: np.ndarray | None = None
    best_iou: np.ndarray | None = None
    curve: np.ndarray | None = None


def main() -> None:
    args = parse()
    cv2.setNumThreads(0)
    truths = from_list(args.list) if args.list else from_metadata(args.metadata, args.masks)
    others, hits = [], None
    if args.select:
        others = from_list(args.select_list) if args.select_list else (
            from_metadata(args.select_metadata))
    check_truths(args, truths, others)
    if args.top1top5:
        found = read_top1top5(args.top1top5, [truth.name for truth in truths])
        hits = np.array([found[truth.name] for truth in truths])
    baselines = {name: name for name in BASELINES if args.baselines}
    sources = {name: find_maps(folder, truths) for name, folder in args.maps.items()} | baselines
    others_maps = {name: find_maps(folder, others) for name, folder in args.select.items()}
    weights = bootstrap.resampling_weights(len(truths), seed=args.seed)
    methods = {}
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
    write(args, report(methods, truths, args.against, args.quartiles), methods, truths, sources)


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
        help='choose the thresholds on these maps, a folder for each method')
    truth = parser.add_mutually_exclusive_group().add_argument
    truth('--select_list', type=Path, help='the image list of --select')
    truth('--select_metadata', type=Path, help="a folder with the benchmark's files, for --select")
    add('--quartiles', action='store_true', help="sizes by the list's quartiles")
    add('--worst', type=positive_int, metavar='N',
        help='draw the N images of lowest IoU of each method to worst-NAME.png')
    add('--images', type=Path, help='the images, for --worst (default: image/ beside --list)')
    add('--jobs', type=positive_int, default=len(os.sched_getaffinity(0)), help='processes')
    add('--seed', type=nonnegative_int, default=0, help='seed of the bootstrap')
    add('--out', type=Path, default=Path('evaluation'), help='the output folder')
    args = parser.parse_args()
    args.maps, args.select = folders_of(parser, args.maps), folders_of(parser, args.select)
    names = [*args.maps, *(BASELINES if args.baselines else ())]
    args.against = args.against or names[0]
    if len(set(names)) < len(names):
        parser.error(f'with --baselines, {", ".join(BASELINES)} are names of theirs: choose others')
    if args.against not in names:
        parser.error(f'--against {args.against}: choose one of {", ".join(names)}')
    if bool(args.select) != bool(args.select_list or args.select_metadata):
        parser.error('give --select together with either --select_list or --select_metadata')
    if args.select and args.select.keys() != args.maps.keys():
        unnamed = all(name == str(folder) for name, folder in args.select.items())
        if len(args.select) != len(args.maps) or not unnamed:
            parser.error(f'--select needs a folder for each of {", ".join(args.maps)}: NAME=FOLDER')
        args.select = dict(zip(args.maps, args.select.values(), strict=True))
    args.images = args.images or (args.list or args.metadata).absolute().parent / 'image'
    return args


def folders_of(parser: Parser, texts: list[str]) -> dict[str, Path]:
    """Name -> folder, of [NAME=]FOLDER."""
    folders = {}
    for text in texts:
        name, separator, folder = text.partition('=')
        if not separator or (Path(text).is_dir() and not Path(folder).is_dir()):
            name = folder = str(Path(text))
        if name in folders:
            parser.error(f'two folders have the same name, {name}: call them NAME=FOLDER')
        if not Path(folder).is_dir():
            note = f' (what precedes = in {text} was taken as its name)' if separator else ''
            raise InputError(f'no folder of maps at {folder}{note}: check the path')
        folders[name] = Path(folder)
    return folders


def check_truths(args: argparse.Namespace, truths: list[GroundTruth], others: list[GroundTruth]
                 ) -> None:
    """Refuse flags that need boxes where there are none, and thresholds chosen on test images."""
    for flag in ('select', 'top1top5', 'worst', 'quartiles'):
        if getattr(args, flag) and any(t.boxes is None for t in (truths[0], *others[:1])):
            raise InputError(f'--{flag} needs boxes: there are masks alone')
    tested = {identity(truth) for truth in truths} if others else set()
    for other in others:
        if identity(other) in tested:
            raise InputError(f'--select: {other.name} is also tested: choose the thresholds on '
                             'other images')


def identity(truth: GroundTruth) -> str:
    """The content of the image; its name where there is no file."""
    return hashlib.sha256(truth.image.read_bytes()).hexdigest() if truth.image else truth.name


def analyse(table: evaluation.Evaluated, weights: np.ndarray, thresholds: Sequence[float],
            levels: np.ndarray | None) -> Method:
    """`levels`: those chosen on other images, of `best_levels`; None if there are none."""
    samples = evaluation.benchmark(table, weights, thresholds, levels)
    if table.levels is None:
        return Method(samples)
    correct, largest = evaluation.correct_boxes(table), table.levels[:, 0]
    right = {f'gt_known_{t}': correct[:, 0, metrics.level_of(t)] for t in thresholds}
    chosen = {'best': evaluation.best_levels(table)}
    if levels is not None:
        chosen = {'transferred': levels, **chosen}
        at = [*levels, levels[0], levels[0]]
        right |= {f'transferred_{name}': correct[:, column, at[column]]
                  for column, name in enumerate(COLUMNS[:correct.shape[1]])}
    in_use = next(iter(chosen.values()))[0]
    return Method(samples, right,
                  {name: list(map(metrics.threshold_of, found)) for name, found in chosen.items()},
                  largest[:, in_use] / metrics.IOU_UNITS, largest.max(1) / metrics.IOU_UNITS,
                  correct[:, 0].mean(0)[metrics.LEVEL_OF_STEP])


def report(methods: dict[str, Method], truths: Sequence[GroundTruth], against: str,
           quartiles: bool) -> dict:
    """evaluation.json: everything that the tables show. Metrics are fractions."""
    content: dict = {
        'schema_version': SCHEMA_VERSION, 'count': len(truths), 'against': against,
        'confidence': bootstrap.CONFIDENCE, 'resamples': bootstrap.RESAMPLES, 'methods': {},
        'differences': differences(methods, against, len(truths))}
    for name, method in methods.items():
        content['methods'][name] = {'metrics': {
            metric: share(method.right[metric]) if metric in method.right
            else bootstrap.estimate(samples) for metric, samples in method.samples.items()}}
        if method.thresholds:
            content['methods'][name] |= {'curve': method.curve.tolist(), 'cam_threshold': {
                which: {'max_box_acc': found[0], 'max_box_acc_v2': dict(
                    zip(map(str, evaluation.V2_DELTAS), found[1:], strict=True))}
                for which, found in method.thresholds.items()}}
    if truths[0].boxes is not None:
        sizes = object_sizes(truths)
        edges = np.quantile(sizes, [0.25, 0.5, 0.75]) if quartiles else np.array(SIZE_EDGES)
        groups = np.searchsorted(edges, sizes, side='right')
        counts = np.bincount(groups, minlength=len(edges) + 1).tolist()
        content['sizes'] = {'edges': edges.tolist(), 'count': counts, 'methods': {
            name: [share(method.iou[groups == group] >= 0.5) if count else None
                   for group, count in enumerate(counts)] for name, method in methods.items()}}
    return content


def share(right: np.ndarray) -> dict[str, float]:
    """A share of images at a fixed threshold, with Wilson's interval; right: bool (N,)."""
    low, high = bootstrap.wilson(int(right.sum()), len(right))
    return {'value': float(right.mean()), 'low': low, 'high': high}


def differences(methods: dict[str, Method], against: str, count: int) -> dict:
    """Of each other method: the metrics' differences. At fixed thresholds their p-values are those
    of the exact McNemar test. Holm's method adjusts p-values for the number of methods."""
    content, reference = {}, methods[against]
    for name, method in methods.items():
        if name == against:
            continue
        tests = {metric: bootstrap.mcnemar(right, reference.right[metric])
                 for metric, right in method.right.items()}
        rows = {metric: {**bootstrap.paired_difference(samples, reference.samples[metric], count),
                         **tests.get(metric, {})} for metric, samples in method.samples.items()}
        content[name] = {'metrics': rows, 'mcnemar': tests}
    for metric in reference.samples if content else ():
        rows = [other['metrics'][metric] for other in content.values()]
        p_values = [row['p'] for row in rows]
        adjusted = p_values if None in p_values else bootstrap.holm(p_values)
        for row, value in zip(rows, adjusted, strict=True):
            row['p_holm'] = value
    return content


def object_sizes(truths: Sequence[GroundTruth]) -> np.ndarray:
    """The area of each image's largest box, clipped to the image, as a fraction of the image's."""
    sizes = []
    for truth in truths:
        height, width = truth.size
        boxes = truth.boxes.clip(0, [width, height] * 2)
        sizes.append((boxes[:, 2:] - boxes[:, :2]).prod(1).max() / (height * width))
    return np.array(sizes)


def write(args: argparse.Namespace, content: dict, methods: dict[str, Method],
          truths: list[GroundTruth], sources: dict) -> None:
    """Write all files, and print the tables."""
    arguments = {name: str(value) if isinstance(value, Path) else value
                 for name, value in vars(args).items() if not isinstance(value, dict)}
    folders = {name: str(folder) for name, folder in args.maps.items()}
    write_json(args.out / 'evaluation.json', {
        **content, 'maps': folders, 'arguments': arguments, 'versions': versions()})
    print(all_tables(content))
    if truths[0].boxes is not None:
        write_csv(args.out / 'images.csv',
                  ('method', 'name', 'label', 'size', 'iou', 'best_iou', 'correct'),
                  image_rows(methods, truths))
        if truths[0].label is not None:
            write_csv(args.out / 'classes.csv', ('method', 'label', 'images', 'max_box_acc'),
                      class_rows(methods, np.array([truth.label for truth in truths])))
        write_bytes(args.out / 'evaluation.png', curves(methods))
    for name in args.maps if args.worst else ():
        write_png(args.out / f'worst-{name.strip("/").replace("/", "-")}.png',
                  worst_sheet(methods[name], truths, sources[name], args.images, args.worst))
    print(f'\nwrote {args.out / "evaluation.json"}')


def image_rows(methods: dict[str, Method], truths: Sequence[GroundTruth]) -> Iterator[tuple]:
    """Each method's IoU at the threshold in use, and the best at any threshold."""
    sizes = object_sizes(truths)
    for name, method in methods.items():
        for truth, size, iou, best in zip(truths, sizes, method.iou, method.best_iou, strict=True):
            yield (name, truth.name, '' if truth.label is None else truth.label, f'{size:.4f}',
                   f'{iou:.4f}', f'{best:.4f}', int(iou >= 0.5))


def class_rows(methods: dict[str, Method], labels: np.ndarray) -> Iterator[tuple]:
    for name, method in methods.items():
        for label in np.unique(labels):
            right = method.iou[labels == label] >= 0.5
            yield name, label, len(right), f'{right.mean():.4f}'


def all_tables(content: dict) -> str:
    """The tables of evaluation.json's content, in percent."""
    rows = {name: method['metrics'] for name, method in content['methods'].items()}
    titles, resamples = titles_of(next(iter(rows.values()))), content['resamples']
    parts = [f'{content["count"]} images, %, with {content["confidence"]:.0%} intervals '
             f'(Wilson\'s at fixed thresholds, else by {resamples} bootstrap resamples of the '
             'images)', table('maps', titles, rows)]
    if content['differences']:
        parts += difference_tables(content, titles)
    if 'sizes' in content:
        edges = [f'{100 * edge:.3g} %' for edge in content['sizes']['edges']]
        ranges = [f'under {edges[0]}', *map(' to '.join, zip(edges, edges[1:], strict=False)),
                  f'{edges[-1]} and more']
        titles = {group: f'{name} ({count} images)' for group, (name, count) in enumerate(
            zip(ranges, content['sizes']['count'], strict=True))}
        parts += ['Right boxes by the size of the object, at the threshold in use',
                  table('area of the box', titles, content['sizes']['methods'])]
    return '\n\n'.join(parts)


def difference_tables(content: dict, titles: dict[str, str]) -> list[str]:
    against = content['against']
    rows = {name: other['metrics'] for name, other in content['differences'].items()}
    holm = f' after Holm\'s correction for {len(rows)} methods' if len(rows) > 1 else ''
    note = f'and p-values; * = significant, p < {SIGNIFICANT}{holm}, each metric by itself'
    if content['count'] < bootstrap.MIN_IMAGES:
        note = f'without p-values, as there are fewer than {bootstrap.MIN_IMAGES} images'
    lost = max(row.get('undefined', 0) for row_of in rows.values() for row in row_of.values())
    if lost:
        note += f'; up to {lost} resamples, where a metric is not defined, are left out'
    return [f'Difference to {against} in percentage points, with bootstrap intervals {note}. At '
            f'fixed thresholds: images that these maps alone : {against} alone has right, and the '
            'exact McNemar test on them.', table('maps', titles, rows, '+')]


def titles_of(names: dict) -> dict[str, str]:
    """Metric -> its column's title. MaxBoxAccV2's single deltas are in evaluation.json alone."""
    titles = {}
    for name, title in TITLES.items():
        chosen_here = f'transferred_{name}' in names
        titles |= {f'transferred_{name}': title,
                   name: title + ' (chosen on the test images)' * chosen_here}
    titles |= {name: name.replace('gt_known_', 'GT-known at ') for name in names
               if name.startswith('gt_known_')}
    return {name: title for name, title in titles.items() if name in names}


def table(corner: str, titles: dict, rows: dict, sign: str = '') -> str:
    """A Markdown table: a row for each method, a column for each title."""
    lines = [f'| {corner} | {" | ".join(titles.values())} |', '| --- ' * (len(titles) + 1) + '|']
    lines += [f'| {name} | {" | ".join(cell(row[column], sign) for column in titles)} |'
              for name, row in rows.items()]
    return '\n'.join(lines)


def cell(row: dict | None, sign: str) -> str:
    """A metric or, with `sign` +, a difference; at fixed thresholds also how many images either
    method alone has right."""
    if row is None:
        return '-'
    value, low, high = (100 * row[name] for name in ('value', 'low', 'high'))
    text = f'{value:{sign}.2f} [{low:{sign}.1f}, {high:{sign}.1f}]'
    if 'only_this' in row:
        text += f' {row["only_this"]} : {row["only_other"]}'
    if row.get('p') is not None:
        text += f' p = {row["p"]:.2g}{" *" if row["p_holm"] < SIGNIFICANT else ""}'
    return text


def curves(methods: dict[str, Method]) -> bytes:
    """MaxBoxAcc over the threshold, a curve for each method, as the content of a PNG file."""
    figure, axes = drawing.threshold_axes('boxes with IoU >= 0.5')
    for name, method in methods.items():
        axes.plot(metrics.THRESHOLDS, method.curve, label=name)
    axes.legend()
    return drawing.png_of(figure)


def worst_sheet(method: Method, truths: list[GroundTruth], maps: list[Path], images: Path,
                count: int) -> np.ndarray:
    """The `count` images of lowest IoU at the threshold in use, RGB: their true boxes and the one
    found, their maps, and what of these exceeds the threshold."""
    rows, threshold = [], next(iter(method.thresholds.values()))[0]
    for index in np.lexsort((method.best_iou, method.iou))[:count]:
        truth, image = truths[index], read_image(images / truths[index].name)
        score_map = score_maps.at_benchmark_size(score_maps.read_score_map(maps[index]))
        score_map = resize(metrics.normalise_map(score_map), image.shape[:2])
        box = largest_box(score_map, threshold)
        rows.append(drawing.Row(
            [drawing.draw_boxes(image, truth.boxes, box), drawing.heatmap(image, score_map),
             drawing.outline(image, score_map > threshold)],
            f'{truth.name}: IoU {method.iou[index]:.2f}, best {method.best_iou[index]:.2f}'))
    return drawing.contact_sheet(rows, ['truth and box', 'score map', 'above the threshold'], 220)


if __name__ == '__main__':
    run(main)
