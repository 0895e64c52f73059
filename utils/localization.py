"""seg/test, and cam/test --evaluate: how well maps localize the objects of a list.

    network, in threads or on a GPU     the outputs of a batch        utils/inference.py
    score_maps                          outputs -> score maps
    measure, stack, concatenate         maps -> a table of arrays     utils/evaluation.py
    summarize                           table -> metrics
    write_tables, print_summary         metrics -> files and text

The tables of SPOL's maps are boxes.csv, classes.csv and sweep.csv; the names of those of other maps
begin with their kind (fused-boxes.csv).
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from utils.boxes import CentreCrop
from utils.distributed import sum_over_ranks
from utils.drawing import sweep_curves
from utils.errors import InputError
from utils.evaluation import SWEEP_THRESHOLDS, Evaluated, concatenate, measure, stack, summarize
from utils.files import write_array, write_bytes, write_csv
from utils.images import read_true_mask
from utils.inference import ListInference, Predictor
from utils.lists import ImageList
from utils.losses import segmentation_probability
from utils.metrics import BENCHMARK_SIDE
from utils.pseudo_mask import scaled_cam
from utils.results import RunFolder

BENCHMARK = {'MaxBoxAcc': 'max_box_acc', 'MaxBoxAccV2': 'max_box_acc_v2', 'PxAP': 'pxap'}
TITLES = {'SPOL': 'SPOL', 'deep': 'plain CAM', 'fused': 'fused CAM'}
OTHERS = {'selected': 'chosen on the images of --select', 'paper_threshold': "the paper's"}
Hits = dict[str, tuple[bool, bool]]  # as `utils.top1top5.read_top1top5` returns them


def evaluate_segmentation(predict: Predictor, images: ImageList, crop: CentreCrop, options: Any,
                          run: RunFolder, hits: Hits | None = None,
                          selection: ImageList | None = None) -> None:
    """Write boxes.csv, classes.csv and results.json of the segmentation network `predict`.

    options: the flags of seg/test.py by their names; hits: the classifier's, or None where only
    GT-known is wanted; selection: other images, on which a threshold is chosen as well.
    """
    metrics = evaluate(predict, ('SPOL',), images, crop, options, run, hits, selection)
    if metrics:
        path = run.write_results(metrics['SPOL'], metrics['seconds'], metrics['SPOL']['count'])
        print(f'wrote {run.file("boxes.csv")} and {path}{metrics["left_out"]}')


def evaluate_cams(predict: Predictor, kinds: tuple[str, ...], images: ImageList, crop: CentreCrop,
                  options: Any, run: RunFolder) -> None:
    """Write the metrics of the CAMs of each image's true class to results.json. `kinds`: `fused`
    (shallow x deep), after `deep` (the plain CAM, of stage 5) where it was trained; `predict` runs
    `CamNet.class_cams`."""
    if images.boxes is None:
        raise InputError(f'{images.source} has no boxes to compare with: add them, or leave out '
                         '--evaluate')
    metrics = evaluate(predict, kinds, images, crop, options, run)
    if metrics:
        path = run.write_results({kind: metrics[kind] for kind in kinds}, metrics['seconds'],
                                 metrics['fused']['count'], 'evaluation')
        print(f'wrote {path}{metrics["left_out"]}')


def evaluate(predict: Predictor, kinds: tuple[str, ...], images: ImageList, crop: CentreCrop,
             options: Any, run: RunFolder, hits: Hits | None = None,
             selection: ImageList | None = None) -> dict[str, Any]:
    """Evaluate the maps of a list, write the tables and print the metrics, on rank 0: the metrics
    of each kind of maps, `seconds`, and the end of the last line, `left_out`. Empty elsewhere."""
    if options.save_maps and options.metrics == 'paper':
        raise InputError('--save_maps needs the maps of whole images: leave out --metrics paper')
    begin, others, threshold = time.monotonic(), {}, options.threshold
    if selection is not None:
        others['selected'] = choose_on_boxes(predict, kinds, selection, crop, options)
    if getattr(options, 'paper_threshold', threshold) != threshold:
        others['paper_threshold'] = options.paper_threshold
    thresholds = np.union1d(SWEEP_THRESHOLDS if options.sweep else [],
                            [threshold, *others.values()])
    views = {'image': crop}
    if options.metrics == 'all':
        views['whole'] = CentreCrop(BENCHMARK_SIDE)
    inference = ListInference(predict, images, views, Measuring(
        images, crop, thresholds, kinds, run.file('maps') if options.save_maps else None), options)
    parts, left_out = inference.gather(list(inference.run('localizing')), run)
    parts = [part for of_rank in parts for part in of_rank]
    if not parts:
        return {}
    tables, metrics, seconds = {}, {}, time.monotonic() - begin
    for kind in kinds:
        table = concatenate([part[kind] for part in parts])
        if hits is not None:
            table = table._replace(hits=np.array([hits[images.name(k)] for k in table.index]))
        tables[kind] = table
        metrics[kind] = {'count': len(table.index)} if images.boxes is None else summarize(
            table, thresholds, threshold, options.sweep, **others)
    chosen = int(np.searchsorted(thresholds, threshold))
    write_tables(run, images, crop, tables, chosen, metrics)
    print_summary(metrics, images, threshold)
    last = kinds[-1]
    warning = size_warning(tables[last].box[:, chosen], metrics[last], crop.side)
    return {**metrics, 'seconds': seconds, 'left_out': left_out + warning}


def check_selection(images: ImageList, selection: ImageList | None) -> None:
    """Refuse to choose a threshold on images that are then tested, or that have no boxes."""
    if selection is None:
        return
    if selection.boxes is None:
        raise InputError(f'{selection.source} has no boxes: choose a list that has for --select')
    shared = set(selection.names.tolist()) & set(images.names.tolist())
    if shared and selection.folder == images.folder:
        raise InputError(f'--select: {len(shared)} images of {selection.source} are also tested, '
                         f'such as {min(shared)}: choose the threshold on other images')


def choose_on_boxes(predict: Predictor, kinds: tuple[str, ...], images: ImageList,
                    crop: CentreCrop, options: Any) -> float:
    """The threshold at which GT-known (strict count) is best on a list with boxes."""
    inference = ListInference(predict, images, {'image': crop}, Measuring(
        images, crop, SWEEP_THRESHOLDS, kinds), options)
    correct = np.sum([part[kinds[-1]].correct.sum(0)
                      for part in inference.run('choosing a threshold')], axis=0)
    return float(SWEEP_THRESHOLDS[sum_over_ranks(correct).argmax()])


@dataclass(frozen=True)
class Measuring:
    """A batch's outputs -> the table of each kind of maps; runs in threads or other processes.
    `folder`: where the whole images' maps of the last kind are written, if at all."""

    images: ImageList
    crop: CentreCrop
    thresholds: np.ndarray
    kinds: tuple[str, ...]
    folder: Path | None = None

    def __call__(self, batch: Mapping[str, np.ndarray], outputs: dict[str, Any]
                 ) -> dict[str, Evaluated]:
        maps = score_maps(outputs, self.crop.side)
        rows: dict[str, list[Evaluated]] = {kind: [] for kind in self.kinds}
        for number, index in enumerate(batch['index'].tolist()):
            size = tuple(batch['size'][number].tolist())
            boxes = None if self.images.boxes is None else self.images.boxes[index]
            mask = self._mask(index, size) if boxes is not None and 'whole' in outputs else None
            for kind in self.kinds:
                of_image = [maps[kind][view][number] for view in outputs]
                rows[kind].append(measure(index, size, of_image, boxes, self.crop,
                                          self.thresholds, mask))
            if self.folder:
                write_array(self.folder / f'{self.images.name(index)}.npy',
                            of_image[1].astype(np.float32))
        return {kind: stack(found) for kind, found in rows.items()}

    def _mask(self, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        folder = self.images.segmentation
        return folder and read_true_mask(self.images.mask_path(folder, index), size)


def score_maps(outputs: dict[str, Any], side: int) -> dict[str, dict[str, Any]]:
    """A network's outputs by view -> score maps by kind and view, of the crop side x side, of the
    whole image 224 x 224, float32. Logits become SPOL's probabilities; (deep, fused) CAMs are
    scaled, and enlarged as the benchmark does."""
    maps: dict[str, dict[str, Any]] = {'SPOL': {}, 'deep': {}, 'fused': {}}
    for view, found in outputs.items():
        if not isinstance(found, list):
            size = side if view == 'image' else BENCHMARK_SIDE
            maps['SPOL'][view] = segmentation_probability(torch.from_numpy(found), size).numpy()
            continue
        for kind, cams in zip(('deep', 'fused'), found, strict=True):
            maps[kind][view] = [
                scaled_cam(cam, side) if view == 'image' else cv2.resize(
                    cam, (BENCHMARK_SIDE, BENCHMARK_SIDE), interpolation=cv2.INTER_CUBIC)
                for cam in cams]
    return maps


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
    if images.boxes is None:
        print(f'{images.source} has no boxes: no localization metrics')
        return
    for kind, values in metrics.items():
        print(summary(TITLES[kind], values, threshold))
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
    if values := _values({name: metrics[key] for name, key in BENCHMARK.items()}):
        lines.append(f'  {values}')
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
