"""seg/test, and cam/test --evaluate: how well maps locate the objects of the val list.

Two protocols, each with its own view of the image: the paper's (resized, centre crop) and the
field's (the whole image at 224 x 224).
"""

import argparse
import csv
import io
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from network import CamNet, SegNet
from utils.arguments import list_path
from utils.boxes import box_from_crop, box_to_crop, clip_to_image
from utils.datasets import TestImages, mask_path
from utils.drawing import sweep_curves
from utils.errors import InputError
from utils.files import write_text, write_whole
from utils.images import read_binary_mask
from utils.lists import NO_BOXES, ImageList
from utils.localization import SWEEP, LocalizationCount, Located, locate
from utils.losses import segmentation_probability
from utils.metrics import SIDE, MaxBoxAcc, PxAP, threshold_ious
from utils.pseudo_mask import scaled_cam
from utils.results import write_results
from utils.testing import Predictor, labels_of, test_batches
from utils.top1top5 import Hits, hits_of

V2_DELTAS = (0.3, 0.5, 0.7)


def evaluate_segmentation(args: argparse.Namespace, model: SegNet, images: ImageList,
                          folder: Path, hits: Hits | None) -> None:
    """Write `boxes.csv`, `classes.csv` and results.json for the images of a list in `folder`.

    `hits`: the classifier's, or None where GT-known is all that is wanted.
    """
    begin = time.monotonic()
    predictor = Predictor(model, args)
    evaluation = Evaluation(args, images, hits)
    for batch in _batches(args, images, folder):
        crops, wholes = (segmentation_probability(predictor(batch[key]), batch[key].shape[1])
                         for key in ('image', 'whole'))
        evaluation.add(batch, crops.cpu().numpy(), wholes.cpu().numpy())
    figures = evaluation.figures()
    evaluation.write_tables()
    if 'sweep' in figures:
        write_curves(args.savepath, {'SPOL': figures['sweep']})
    path = write_results(args, figures, time.monotonic() - begin, len(images))
    if images.boxes is None:
        print(f'{list_path(args)} has no boxes: no localization figures')
    else:
        _print_figures('SPOL', figures, args.threshold)
    print(f'wrote {args.savepath / "boxes.csv"} and {path}')


def evaluate_cams(args: argparse.Namespace, model: CamNet, images: ImageList,
                  folder: Path) -> None:
    """Write the figures of the CAMs of each image's true class to results.json: `fused` (deep x
    shallow) and, where it was trained, `deep` (the plain CAM)."""
    if images.boxes is None:
        raise InputError(f'{list_path(args)} has no boxes to compare with: add them, or leave out '
                         '--evaluate')
    begin = time.monotonic()
    predictor = Predictor(model, args)
    kinds = ('deep', 'fused') if model.auxiliary else ('fused',)
    evaluations = {kind: Evaluation(args, images) for kind in kinds}
    for batch in _batches(args, images, folder):
        labels, side = labels_of(images, batch), batch['image'].shape[1]
        crops, wholes = (predictor(batch[key], labels, method=model.class_cams)
                         for key in ('image', 'whole'))
        for kind, crop_cams, whole_cams in zip(('deep', 'fused'), crops, wholes, strict=True):
            if kind in evaluations:
                evaluations[kind].add(
                    batch, [scaled_cam(cam, side) for cam in crop_cams.cpu().numpy()],
                    [cv2.resize(cam, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
                     for cam in whole_cams.cpu().numpy()])
    figures = {kind: evaluation.figures() for kind, evaluation in evaluations.items()}
    for kind, evaluation in evaluations.items():
        evaluation.write_tables(prefix=f'{kind}-')
    if args.sweep:
        write_curves(args.savepath, {f'{kind} CAM': figures[kind]['sweep'] for kind in kinds})
    path = write_results(args, figures, time.monotonic() - begin, len(images), 'evaluation')
    for kind in kinds:
        _print_figures(f'{kind} CAM', figures[kind], args.threshold)
    print(f'wrote {path}')


class Evaluation:
    """Counts the images' maps by both protocols."""

    def __init__(self, args: argparse.Namespace, images: ImageList, hits: Hits | None = None):
        self.args, self.images = args, images
        self.hits = None if hits is None else [hits_of(hits, name, args.top1top5)
                                               for name in images.names]
        thresholds = np.union1d(SWEEP if args.sweep else [], args.threshold)
        self.chosen = int(np.searchsorted(thresholds, args.threshold))
        self.counts = LocalizationCount(thresholds, classified=hits is not None)
        self.largest = MaxBoxAcc()
        self.every = MaxBoxAcc(V2_DELTAS, multi_contour=True)
        self.pixels = PxAP()
        masks = args.datapath / 'segmentation'
        self.masks = masks if masks.is_dir() else None
        self.rows: list[tuple] = []

    def add(self, batch: dict, crop_maps: list[np.ndarray], whole_maps: list[np.ndarray]) -> None:
        """Count a batch of `TestImages`: each image's map in the crop, and of the whole image."""
        for index, size, crop_map, whole_map in zip(
                batch['index'].tolist(), batch['size'].tolist(), crop_maps, whole_maps,
                strict=True):
            if self.images.boxes is None:
                located = locate(crop_map, NO_BOXES, self.args.threshold)
                self.rows.append((*self._place(index, size, located), '', ''))
                continue
            boxes = self.images.boxes[index]
            self._count_paper(index, tuple(size), boxes, crop_map)
            self._count_field(index, tuple(size), boxes, whole_map)

    def figures(self) -> dict:
        """All figures, as results.json has them; null for what there is no ground truth for."""
        if self.images.boxes is None:
            return {'count': len(self.images)}
        (max_box_acc,), (threshold,) = self.largest.compute()
        v2, _ = self.every.compute()
        figures = {
            **self.counts.at(self.args.threshold),
            'max_box_acc': float(max_box_acc),
            'max_box_acc_v2': float(v2.mean()),
            'pxap': self._pxap(),
            'best_threshold': float(threshold),
        }
        if self.hits is not None:
            top1, top5 = np.mean(self.hits, axis=0)
            figures['classification'] = {'top1': float(top1), 'top5': float(top5)}
        if self.args.sweep:
            figures['sweep'] = self.counts.sweep()
        return figures

    def write_tables(self, prefix: str = '') -> None:
        """boxes.csv: each image's box; classes.csv: each class's figures, strict count; sweep.csv:
        GT-known at all thresholds. Their names begin with `prefix`."""
        folder = self.args.savepath
        _write_csv(folder / f'{prefix}boxes.csv',
                   ('name', 'x0', 'y0', 'x1', 'y1', 'iou', 'correct'), self.rows)
        if self.images.boxes is None:
            return
        _write_csv(folder / f'{prefix}classes.csv',
                   ('label', 'images', 'top1', 'top5', 'gt_known'), self._class_rows())
        if self.args.sweep:
            sweep = self.counts.sweep()
            columns = ('thresholds', 'paper', 'strict')
            _write_csv(folder / f'{prefix}sweep.csv', ('threshold', 'paper', 'strict'),
                       zip(*(np.round(sweep[column], 6) for column in columns), strict=True))

    def _class_rows(self) -> Iterator[tuple]:
        correct = np.array([row[-1] for row in self.rows], dtype=bool)
        hits = None if self.hits is None else np.array(self.hits).T & correct
        for label in np.unique(self.images.labels):
            of_class = self.images.labels == label
            tops = ('', '') if hits is None else hits[:, of_class].mean(1).round(6).tolist()
            yield label, of_class.sum(), *tops, round(correct[of_class].mean(), 6)

    def _count_paper(self, index: int, size: tuple[int, int], boxes: np.ndarray,
                     score_map: np.ndarray) -> None:
        boxes = box_to_crop(clip_to_image(boxes, size), size, self.args.resize, self.args.crop)
        hits = (False, False) if self.hits is None else self.hits[index]
        located = self.counts.accumulate(score_map, boxes, *hits)[self.chosen]
        if np.isnan(boxes).all():
            located = Located(None, 0.0)
        self.rows.append((*self._place(index, size, located), f'{located.iou:.6f}',
                          int(located.correct)))

    def _count_field(self, index: int, size: tuple[int, int], boxes: np.ndarray,
                     score_map: np.ndarray) -> None:
        largest, every = threshold_ious(score_map, boxes, size)
        self.largest.accumulate_ious(largest)
        self.every.accumulate_ious(every)
        if self.masks:
            mask = read_binary_mask(mask_path(self.masks, self.images.names[index]))
            self.pixels.accumulate(score_map, mask)

    def _pxap(self) -> float | None:
        if self.masks is None:
            return None
        try:
            return self.pixels.compute()
        except ValueError:
            print(f'no PxAP: the masks in {self.masks} have no foreground (white is 255)')
            return None

    def _place(self, index: int, size: tuple[int, int], located: Located) -> tuple[str, ...]:
        """The image's name, and its box in pixels of the original image."""
        name = self.images.names[index]
        if located.box is None:
            return name, '', '', '', ''
        corners = box_from_crop(located.box, size, self.args.resize, self.args.crop)
        return name, *(f'{value:.2f}' for value in corners)


def write_curves(folder: Path, sweeps: dict[str, dict]) -> None:
    write_whole(folder / 'sweep.png', lambda file: file.write(sweep_curves(sweeps)))


def _write_csv(path: Path, header: tuple, rows: Iterable[tuple]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([header, *rows])
    write_text(path, text.getvalue())


def _batches(args: argparse.Namespace, images: ImageList, folder: Path):
    dataset = TestImages(images, folder, args.resize, args.crop, whole=SIDE)
    return test_batches(dataset, args, 'locating')


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
