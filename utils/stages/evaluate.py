"""seg/test, and cam/test --evaluate: how well maps locate the objects of the val list.

Two protocols, each with its own view of the image: the paper's (resized, centre crop) and the
field's (the whole image at 224 x 224).
"""

import argparse
import csv
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from network import CamNet, SegNet
from utils.arguments import list_path
from utils.data.datasets import TestImages, mask_path
from utils.data.images import read_binary_mask
from utils.data.lists import NO_BOXES, ImageList
from utils.engine.distributed import gather, is_main
from utils.engine.inference import Predictor, labels_of, process
from utils.errors import InputError
from utils.localization.boxes import box_from_crop, box_to_crop, clip_to_image
from utils.localization.losses import segmentation_probability
from utils.localization.metrics import SIDE, MaxBoxAcc, PxAP, pixel_counts, threshold_ious
from utils.localization.protocol import SWEEP, LocalizationCount, Located, locate
from utils.localization.pseudo_mask import scaled_cam
from utils.outputs.bad_images import BadImages
from utils.outputs.drawing import sweep_curves
from utils.outputs.files import write_text, write_whole
from utils.outputs.results import write_results
from utils.outputs.top1top5 import Hits, hits_of

V2_DELTAS = (0.3, 0.5, 0.7)


def evaluate_segmentation(args: argparse.Namespace, model: SegNet, images: ImageList,
                          folder: Path, hits: Hits | None) -> None:
    """Write `boxes.csv`, `classes.csv` and results.json for the images of a list in `folder`.

    `hits`: the classifier's, or None where GT-known is all that is wanted.
    """
    begin = time.monotonic()
    predictor = Predictor(model, args)
    evaluation = Evaluation(args, images, hits)

    def measure(batch: dict) -> list[Measured]:
        crops, wholes = (segmentation_probability(predictor(batch[key]), batch[key].shape[1])
                         for key in ('image', 'whole'))
        return evaluation.measure(batch, crops.cpu().numpy(), wholes.cpu().numpy())

    bad = BadImages(args, images)
    for measured in _process(args, images, folder, measure, bad):
        evaluation.count(measured)
    evaluation.merge_processes()
    bad.write()
    if not is_main():
        return
    figures = evaluation.figures()
    evaluation.write_tables()
    if 'sweep' in figures:
        write_curves(args.savepath, {'SPOL': figures['sweep']})
    path = write_results(args, figures, time.monotonic() - begin, figures['count'])
    if images.boxes is None:
        print(f'{list_path(args)} has no boxes: no localization figures')
    else:
        _print_figures('SPOL', figures, args.threshold)
    print(f'wrote {args.savepath / "boxes.csv"} and {path}{bad.mention()}')


def evaluate_cams(args: argparse.Namespace, model: CamNet, images: ImageList,
                  folder: Path) -> None:
    """Write the figures of the CAMs of each image's true class to results.json: `fused` (deep x
    shallow) and, where it was trained, `deep` (the plain CAM)."""
    if images.boxes is None:
        raise InputError(f'{list_path(args)} has no boxes to compare with: add them, or leave out '
                         '--evaluate')
    begin = time.monotonic()
    predictor = Predictor(model, args, method='class_cams')
    kinds = ('deep', 'fused') if model.auxiliary else ('fused',)
    evaluations = {kind: Evaluation(args, images) for kind in kinds}

    def measure(batch: dict) -> dict[str, list[Measured]]:
        labels, side = labels_of(images, batch), batch['image'].shape[1]
        cams = {key: dict(zip(('deep', 'fused'), predictor(batch[key], labels), strict=True))
                for key in ('image', 'whole')}
        return {kind: evaluation.measure(
                    batch, [scaled_cam(cam, side) for cam in cams['image'][kind].cpu().numpy()],
                    [cv2.resize(cam, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
                     for cam in cams['whole'][kind].cpu().numpy()])
                for kind, evaluation in evaluations.items()}

    bad = BadImages(args, images)
    for measured in _process(args, images, folder, measure, bad):
        for kind, evaluation in evaluations.items():
            evaluation.count(measured[kind])
    for evaluation in evaluations.values():
        evaluation.merge_processes()
    bad.write()
    if not is_main():
        return
    figures = {kind: evaluation.figures() for kind, evaluation in evaluations.items()}
    for kind, evaluation in evaluations.items():
        evaluation.write_tables(prefix=f'{kind}-')
    if args.sweep:
        write_curves(args.savepath, {f'{kind} CAM': figures[kind]['sweep'] for kind in kinds})
    path = write_results(args, figures, time.monotonic() - begin, figures['fused']['count'],
                         'evaluation')
    for kind in kinds:
        _print_figures(f'{kind} CAM', figures[kind], args.threshold)
    print(f'wrote {path}{bad.mention()}')


class Measured(NamedTuple):
    """What one image's maps say, before it is counted."""

    index: int
    size: tuple[int, int]
    located: list[Located]                       # at each threshold, in the crop
    has_box: bool
    ious: tuple[np.ndarray, np.ndarray] | None   # as `threshold_ious` gives them
    pixels: np.ndarray | None                    # as `pixel_counts` gives them


class Tally:
    """What is counted, by both protocols, and each image's row of boxes.csv by its index."""

    def __init__(self, thresholds: np.ndarray, classified: bool):
        self.counts = LocalizationCount(thresholds, classified)
        self.largest = MaxBoxAcc()
        self.every = MaxBoxAcc(V2_DELTAS, multi_contour=True)
        self.pixels = PxAP()
        self.rows: dict[int, tuple] = {}
        self.hits: dict[int, tuple[bool, bool]] = {}

    def merge(self, other: 'Tally') -> None:
        self.counts.merge(other.counts)
        self.largest.merge(other.largest)
        self.every.merge(other.every)
        self.pixels.accumulate_counts(other.pixels.counts)
        self.rows.update(other.rows)
        self.hits.update(other.hits)


class Evaluation:
    """Counts the images' maps by both protocols."""

    def __init__(self, args: argparse.Namespace, images: ImageList, hits: Hits | None = None):
        self.args, self.images, self.hits = args, images, hits
        self.thresholds = np.union1d(SWEEP if args.sweep else [], args.threshold)
        self.chosen = int(np.searchsorted(self.thresholds, args.threshold))
        masks = args.datapath / 'segmentation'
        self.masks = masks if masks.is_dir() else None
        self.tally = Tally(self.thresholds, classified=hits is not None)

    def measure(self, batch: dict, crop_maps: Sequence[np.ndarray],
                whole_maps: Sequence[np.ndarray]) -> list[Measured]:
        """Measure a batch of `TestImages` by each image's map in the crop, and of the whole
        image. Changes nothing, so that threads may do it at once."""
        return [self._measure(*maps) for maps in zip(
            batch['index'].tolist(), map(tuple, batch['size'].tolist()), crop_maps, whole_maps,
            strict=True)]

    def _measure(self, index: int, size: tuple[int, int], crop_map: np.ndarray,
                 whole_map: np.ndarray) -> Measured:
        boxes = NO_BOXES if self.images.boxes is None else self.images.boxes[index]
        in_crop = box_to_crop(clip_to_image(boxes, size), size, self.args.resize, self.args.crop)
        located = [locate(crop_map, in_crop, threshold) for threshold in self.thresholds]
        ious = pixels = None
        if self.images.boxes is not None:
            ious = threshold_ious(whole_map, boxes, size)
            if self.masks:
                mask = read_binary_mask(mask_path(self.masks, self.images.names[index]))
                pixels = pixel_counts(whole_map, mask)
        return Measured(index, size, located, not np.isnan(in_crop).all(), ious, pixels)

    def count(self, measured: list[Measured]) -> None:
        for image in measured:
            if self.images.boxes is not None:
                self._count(image)
            self.tally.rows[image.index] = self._row(image)

    def _count(self, image: Measured) -> None:
        hits = (False, False)
        if self.hits is not None:
            hits = hits_of(self.hits, self.images.names[image.index], self.args.top1top5)
            self.tally.hits[image.index] = hits
        self.tally.counts.accumulate_located(image.located, image.has_box, *hits)
        largest, every = image.ious
        self.tally.largest.accumulate_ious(largest)
        self.tally.every.accumulate_ious(every)
        if image.pixels is not None:
            self.tally.pixels.accumulate_counts(image.pixels)

    def merge_processes(self) -> None:
        """The main process counts what the others have counted, too."""
        for other in gather(self.tally)[1:]:
            self.tally.merge(other)

    def figures(self) -> dict:
        """All figures, as results.json has them; null for what there is no ground truth for."""
        if self.images.boxes is None:
            return {'count': len(self.tally.rows)}
        (max_box_acc,), (threshold,) = self.tally.largest.compute()
        v2, _ = self.tally.every.compute()
        figures = {
            **self.tally.counts.at(self.args.threshold),
            'max_box_acc': float(max_box_acc),
            'max_box_acc_v2': float(v2.mean()),
            'pxap': self._pxap(),
            'best_threshold': float(threshold),
        }
        if self.hits is not None:
            top1, top5 = np.mean(list(self.tally.hits.values()), axis=0)
            figures['classification'] = {'top1': float(top1), 'top5': float(top5)}
        if self.args.sweep:
            figures['sweep'] = self.tally.counts.sweep()
        return figures

    def write_tables(self, prefix: str = '') -> None:
        """boxes.csv: each image's box; classes.csv: each class's figures, strict count; sweep.csv:
        GT-known at all thresholds. Their names begin with `prefix`."""
        folder, rows = self.args.savepath, sorted(self.tally.rows.items())
        _write_csv(folder / f'{prefix}boxes.csv',
                   ('name', 'x0', 'y0', 'x1', 'y1', 'iou', 'correct'), [row for _, row in rows])
        if self.images.boxes is None:
            return
        _write_csv(folder / f'{prefix}classes.csv',
                   ('label', 'images', 'top1', 'top5', 'gt_known'), self._class_rows())
        if self.args.sweep:
            sweep = self.tally.counts.sweep()
            columns = ('thresholds', 'paper', 'strict')
            _write_csv(folder / f'{prefix}sweep.csv', ('threshold', 'paper', 'strict'),
                       zip(*(np.round(sweep[column], 6) for column in columns), strict=True))

    def _class_rows(self) -> Iterator[tuple]:
        indices = sorted(self.tally.rows)
        labels = self.images.labels[indices]
        correct = np.array([self.tally.rows[index][-1] for index in indices], dtype=bool)
        hits = None if self.hits is None else np.array(
            [self.tally.hits[index] for index in indices]).T & correct
        for label in np.unique(labels):
            of_class = labels == label
            tops = ('', '') if hits is None else hits[:, of_class].mean(1).round(6).tolist()
            yield label, of_class.sum(), *tops, round(correct[of_class].mean(), 6)

    def _pxap(self) -> float | None:
        if self.masks is None:
            return None
        try:
            return self.tally.pixels.compute()
        except ValueError:
            print(f'no PxAP: the masks in {self.masks} have no foreground (white is 255)')
            return None

    def _row(self, image: Measured) -> tuple:
        """The image's name, its box in pixels of the original image, and whether it is right."""
        name, located = self.images.names[image.index], image.located[self.chosen]
        if self.images.boxes is not None and not image.has_box:
            located = Located(None, 0.0)
        corners = ('', '', '', '')
        if located.box is not None:
            corners = [f'{value:.2f}' for value in box_from_crop(
                located.box, image.size, self.args.resize, self.args.crop)]
        verdict = (('', '') if self.images.boxes is None
                   else (f'{located.iou:.6f}', int(located.correct)))
        return name, *corners, *verdict


def write_curves(folder: Path, sweeps: dict[str, dict]) -> None:
    write_whole(folder / 'sweep.png', lambda file: file.write(sweep_curves(sweeps)))


def _write_csv(path: Path, header: tuple, rows: Iterable[tuple]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([header, *rows])
    write_text(path, text.getvalue())


def _process(args: argparse.Namespace, images: ImageList, folder: Path, measure: Callable,
             bad: BadImages) -> Iterator:
    dataset = TestImages(images, folder, args.resize, args.crop, whole=SIDE)
    return process(dataset, args, 'locating', measure, bad)


def _print_figures(what: str, figures: dict, threshold: float) -> None:
    def shown(counted: dict) -> str:
        return ', '.join(f'{name} {value:.4f}' for name, value in counted.items()
                         if value is not None)

    print(f'{what} at threshold {threshold}, {figures["count"]} images '
          f'({figures["no_contour"]} without a contour, {figures["no_box"]} without a box):')
    print(f'  strict count: {shown(figures["strict"])}')
    print(f'  paper\'s count: {shown(figures["paper"])}')
    print(f'  MaxBoxAcc {figures["max_box_acc"]:.4f}, '
          f'MaxBoxAccV2 {figures["max_box_acc_v2"]:.4f}'
          + (f', PxAP {figures["pxap"]:.4f}' if figures['pxap'] is not None else ''))
    if 'classification' in figures:
        print(f'  classifier: {shown(figures["classification"])}')
    if 'sweep' in figures:
        best = figures['sweep']
        for first in range(0, len(best['thresholds']), 10):
            print(f'  threshold {best["thresholds"][first]:.2f}: GT-known '
                  f'{best["strict"][first]:.4f} strict, {best["paper"][first]:.4f} paper')
        print(f'  best threshold {best["best_threshold"]:.2f}: GT-known '
              f'{best["best"]["strict"]["gt_known"]:.4f} (strict)')
