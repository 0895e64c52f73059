"""seg/test, and cam/test --evaluate: how well maps localize the objects of a list.

    network, in threads or on a GPU     the outputs of a batch        utils/inference.py
    score_maps                          outputs -> score maps
    measure, stack, concatenate         maps -> a table of arrays     utils/evaluation.py
    summarize                           table -> metrics
    write_boxes, summary                table, metrics -> boxes.csv, text

The boxes of other maps than SPOL's are in deep-boxes.csv and fused-boxes.csv.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from utils.boxes import CentreCrop
from utils.distributed import gather_to_main, of_all_ranks
from utils.errors import InputError, warn
from utils.evaluation import SWEEP_THRESHOLDS, Evaluated, concatenate, measure, stack, summarize
from utils.files import write_array, write_csv
from utils.images import read_true_mask
from utils.inference import ListInference, Predictor
from utils.lists import ImageList
from utils.losses import segmentation_probability
from utils.metrics import BENCHMARK_SIDE
from utils.pseudo_mask import scaled_cam
from utils.results import RunFolder

TITLES = {'SPOL': 'SPOL', 'deep': 'plain CAM', 'fused': 'fused CAM'}


def evaluate(predict: Predictor, kinds: tuple[str, ...], images: ImageList, crop: CentreCrop,
             options: Any, run: RunFolder, hits: dict | None = None,
             selection: ImageList | None = None) -> None:
    """Evaluate the maps of a list; write the tables and results.json, and print the metrics.

    kinds: `SPOL`; or `fused` (the CAMs of each image's true class, of `CamNet.class_cams`), after
    `deep` (the plain CAMs) where they were trained. options: the flags of the test script; hits:
    the classifier's, of `read_top1top5`; selection: other images, on which a threshold is chosen
    as well. Raises InputError for CAMs of images without boxes.
    """
    if images.boxes is None and kinds != ('SPOL',):
        raise InputError(f'{images.source} has no boxes to compare with: add them, or leave out '
                         '--evaluate')
    if options.save_maps and options.metrics == 'paper':
        raise InputError('--save_maps needs the maps of whole images: leave out --metrics paper')
    begin, others, threshold = time.monotonic(), {}, options.threshold
    if selection is not None:
        others['selected'] = choose_on_boxes(predict, selection, crop, options)
    if getattr(options, 'paper_threshold', threshold) != threshold:
        others['paper_threshold'] = options.paper_threshold
    thresholds = np.union1d(SWEEP_THRESHOLDS if options.sweep else [],
                            [threshold, *others.values()])
    views = {'image': crop}
    if options.metrics == 'all':
        views['whole'] = CentreCrop(BENCHMARK_SIDE)
    inference = ListInference(predict, images, views, Measuring(
        images, crop, thresholds, kinds, run.path / 'maps' if options.save_maps else None), options)
    parts = list(chain(*gather_to_main(list(inference.run('localizing')))))
    if not parts:  # another rank than 0
        return
    metrics, chosen = {}, int(np.searchsorted(thresholds, threshold))
    for kind in kinds:
        table = concatenate([part[kind] for part in parts])
        if hits is not None:
            table = table._replace(hits=np.array([hits[images.name(k)] for k in table.index]))
        metrics[kind] = {'count': len(table.index)}
        if images.boxes is None:
            print(f'{images.source} has no boxes: no localization metrics')
        else:
            metrics[kind] = summarize(table, thresholds, threshold, options.sweep, **others)
            print(summary(TITLES[kind], threshold, metrics[kind]))
        prefix = '' if kind == 'SPOL' else f'{kind}-'
        write_boxes(run.path / f'{prefix}boxes.csv', images, crop, table, chosen)
    found, section = (metrics['SPOL'], None) if kinds == ('SPOL',) else (metrics, 'evaluation')
    path = run.write_results(found, time.monotonic() - begin, len(table.index), section)
    print(f'wrote {path} and the boxes beside it')
    warn_of_sizes(table.box[:, chosen], table.correct[:, chosen], crop.side)


def choose_on_boxes(predict: Predictor, images: ImageList, crop: CentreCrop, options: Any) -> float:
    """The threshold at which SPOL's GT-known (strict count) is best on a list with boxes."""
    inference = ListInference(predict, images, {'image': crop}, Measuring(
        images, crop, SWEEP_THRESHOLDS, ('SPOL',)), options)
    correct = sum((part['SPOL'].correct.sum(0) for part in inference.run('choosing a threshold')),
                  np.zeros(len(SWEEP_THRESHOLDS)))
    return float(SWEEP_THRESHOLDS[sum(of_all_ranks(correct)).argmax()])


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
        images, maps = self.images, score_maps(outputs, self.crop.side)
        rows: dict[str, list[Evaluated]] = {kind: [] for kind in self.kinds}
        for number, index in enumerate(batch['index'].tolist()):
            size, mask = tuple(batch['size'][number].tolist()), None
            boxes = None if images.boxes is None else images.boxes[index]
            if images.segmentation and boxes is not None and 'whole' in outputs:
                mask = read_true_mask(images.mask_path(images.segmentation, index), size)
            for kind in self.kinds:
                of_image = [of_view[number] for of_view in maps[kind]]
                rows[kind].append(measure(index, size, of_image, boxes, self.crop,
                                          self.thresholds, mask))
            if self.folder:
                write_array(self.folder / f'{images.name(index)}.npy',
                            of_image[1].astype(np.float32))
        return {kind: stack(found) for kind, found in rows.items()}


def score_maps(outputs: dict[str, Any], side: int) -> dict[str, list]:
    """A network's outputs by view -> by kind, the score maps of each view, float32: of the crop
    side x side, of the whole image 224 x 224. Logits become SPOL's probabilities; (deep, fused)
    CAMs are scaled, and enlarged as the benchmark does."""
    maps = defaultdict(list)
    for view, found in outputs.items():
        size = side if view == 'image' else BENCHMARK_SIDE
        if isinstance(found, list):
            for kind, cams in zip(('deep', 'fused'), found, strict=True):
                maps[kind].append([
                    scaled_cam(cam, side) if view == 'image' else cv2.resize(
                        cam, (size, size), interpolation=cv2.INTER_CUBIC) for cam in cams])
        else:
            maps['SPOL'].append(segmentation_probability(torch.from_numpy(found), size).numpy())
    return maps


def write_boxes(path: Path, images: ImageList, crop: CentreCrop, table: Evaluated, chosen: int
                ) -> None:
    """Write boxes, in pixels of the original images, at the threshold number `chosen`."""
    known, correct, rows = images.boxes is not None, table.correct[:, chosen], []
    for number, index in enumerate(table.index):
        corners, verdict = [''] * 4, [''] * 2
        if table.contour[number, chosen] and (table.has_box[number] or not known):
            box = crop.from_crop(table.box[number, chosen], table.size[number])
            corners = [f'{value:.2f}' for value in box]
        if known:
            verdict = [f'{table.iou[number, chosen]:.6f}', int(correct[number])]
        rows.append([images.name(index), *corners, *verdict])
    write_csv(path, ('name', 'x0', 'y0', 'x1', 'y1', 'iou', 'correct'), rows)


def summary(title: str, threshold: float, metrics: dict) -> str:
    """The metrics of `utils.evaluation.summarize` as lines of text."""
    intervals = metrics['intervals']
    lines = [f'{title} at threshold {threshold}, {metrics["count"]} images '
             f'({metrics["no_contour"]} without a contour, {metrics["no_box"]} without a '
             f'ground-truth box in the crop), with {intervals["confidence"]:.0%} intervals:',
             f'{_values(metrics["strict"], **intervals["strict"])} (strict count)',
             f'{_values(metrics["paper"])} (paper\'s count)',
             _values(metrics, **intervals)]
    lines += [f'{name} {metrics[name]["threshold"]}: {_values(metrics[name]["strict"])}'
              for name in ('selected', 'paper_threshold') if name in metrics]
    if 'sweep' in metrics:
        best = metrics['sweep']['best']['strict']
        lines.append(f'best of the sweep {metrics["sweep"]["best_threshold"]}: {_values(best)}')
    if 'classification' in metrics:
        lines.append(f'classifier: {_values(metrics["classification"])}')
    return '\n  '.join(filter(None, lines))


def _values(metrics: dict, **intervals: tuple[float, float]) -> str:
    """Those of the metrics that are numbers, with their intervals."""
    texts = {name: f'{name} {value:.4f}' for name, value in metrics.items()
             if isinstance(value, float)}
    for name in texts.keys() & intervals:
        texts[name] += ' [{:.4f}, {:.4f}]'.format(*intervals[name])
    return ', '.join(texts.values())


def warn_of_sizes(boxes: np.ndarray, correct: np.ndarray, side: int) -> None:
    """Warn where most boxes, (N, 4), cover nearly all or nothing of the crop, side x side, and are
    not known to be correct, bool (N,)."""
    share = np.median((boxes[:, 2:].astype(float) - boxes[:, :2]).prod(1)) / side ** 2
    if not 0.01 <= share <= 0.9 and correct.mean() < 0.5:
        warn(f'most boxes cover {"more than 90" if share > 0.9 else "less than 1"} % of the image: '
             'look at show.png; train for more steps, or try another --threshold')
