"""seg/test, and cam/test --evaluate: how well maps localize the objects of a list.

    maps of a batch -> measurements of each image -> accumulated metrics -> files
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from network.mffnet import CamNet, SegNet
from utils.data.datasets import EvalImages
from utils.data.images import read_binary_mask
from utils.data.lists import ImageList
from utils.data.transforms import eval_transform
from utils.engine.distributed import gather_to_main, is_main_process
from utils.engine.inference import Inference, Predictor, labels_of
from utils.errors import InputError
from utils.localization.boxes import CentreCrop
from utils.localization.losses import segmentation_probability
from utils.localization.measurement import (
    EvaluationMetrics,
    Measurement,
    ScoreMaps,
    measure,
    thresholds_of,
)
from utils.localization.metrics import BENCHMARK_SIDE
from utils.localization.pseudo_mask import scaled_cam
from utils.outputs.bad_images import BadImages
from utils.outputs.drawing import sweep_curves
from utils.outputs.files import atomic_write
from utils.outputs.results import RunFolder
from utils.outputs.tables import summarize, write_boxes, write_classes, write_sweep
from utils.outputs.top1top5 import Hits
from utils.stages.show import write_cam_sheet, write_seg_sheet

MapsOfBatch = Callable[[dict], dict[str, list[ScoreMaps]]]


@dataclass(frozen=True)
class EvaluationOptions:
    """What is reported, named as the flags of the scripts."""

    threshold: float = 0.2
    sweep: bool = False
    metrics: str = 'all'
    save_maps: bool = False
    show: int = 0


def evaluate_segmentation(model: SegNet, images: ImageList, crop: CentreCrop,
                          inference: Inference, run: RunFolder, options: EvaluationOptions,
                          hits: Hits | None = None) -> None:
    """Write boxes.csv, classes.csv and results.json of the segmentation network.

    `hits`: the classifier's, or None where only GT-known is wanted.
    """
    predict = inference.predictor(model)
    evaluation = Evaluation(images, crop, inference, run, options, hits)
    metrics = evaluation.run(lambda batch: {'SPOL': segmentation_maps(predict, batch)})
    if not metrics:
        return
    path = run.write_results(metrics['SPOL'], evaluation.seconds, metrics['SPOL']['count'])
    write_seg_sheet(run.file('show.png'), predict, images, crop, options.threshold, options.show)
    evaluation.print_summary(metrics)
    print(f'wrote {run.file("boxes.csv")} and {path}{evaluation.bad.summary()}')


def evaluate_cams(model: CamNet, images: ImageList, crop: CentreCrop, inference: Inference,
                  run: RunFolder, options: EvaluationOptions) -> None:
    """Write the metrics of the CAMs of each image's true class to results.json: `fused` (shallow
    x deep) and, where it was trained, `deep` (the plain CAM)."""
    if images.boxes is None:
        raise InputError(f'{images.source} has no boxes to compare with: add them, or leave out '
                         '--evaluate')
    predict = inference.predictor(model, method='class_cams')
    kinds = ('deep', 'fused') if model.auxiliary else ('fused',)
    evaluation = Evaluation(images, crop, inference, run, options, names=kinds)
    metrics = evaluation.run(lambda batch: cam_maps(predict, batch, images, kinds))
    if not metrics:
        return
    path = run.write_results(metrics, evaluation.seconds, metrics['fused']['count'], 'evaluation')
    write_cam_sheet(run.file('show.png'), predict, images,
                    eval_transform(crop.resize, crop.crop), options.show, crop,
                    options.threshold)
    evaluation.print_summary(metrics)
    print(f'wrote {path}{evaluation.bad.summary()}')


def segmentation_maps(predict: Predictor, batch: dict) -> list[ScoreMaps]:
    """The foreground probabilities of a batch's views 'image' and, where there is one, 'whole'."""
    views = [segmentation_probability(predict(batch[view]), batch[view].shape[1])
             for view in ('image', 'whole') if view in batch]
    views = [predict.transfer.download(view).numpy() for view in views]
    return [ScoreMaps(*maps) for maps in zip(*views, strict=True)]


def cam_maps(predict: Predictor, batch: dict, images: ImageList, kinds: tuple[str, ...]
             ) -> dict[str, list[ScoreMaps]]:
    """The `deep` and `fused` CAMs of the images' classes, of the same views."""
    labels, side = labels_of(images, batch), batch['image'].shape[1]

    def maps_of(view: str) -> list[np.ndarray]:
        return [predict.transfer.download(cams).numpy() for cams in predict(batch[view], labels)]

    crops = [[scaled_cam(cam, side) for cam in cams] for cams in maps_of('image')]
    wholes = [[None] * len(labels)] * 2
    if 'whole' in batch:
        wholes = [[cv2.resize(cam, (BENCHMARK_SIDE, BENCHMARK_SIDE), interpolation=cv2.INTER_CUBIC)
                   for cam in cams]
                  for cams in maps_of('whole')]
    maps = {kind: list(map(ScoreMaps, *views))
            for kind, *views in zip(('deep', 'fused'), crops, wholes, strict=True)}
    return {kind: maps[kind] for kind in kinds}


class Evaluation:
    """Measures the maps of all images of a list, accumulates the metrics, and writes the tables.

    Several kinds of maps (`names`) may be evaluated at once.
    """

    def __init__(self, images: ImageList, crop: CentreCrop, inference: Inference, run: RunFolder,
                 options: EvaluationOptions, hits: Hits | None = None,
                 names: tuple[str, ...] = ('SPOL',)):
        if options.save_maps and options.metrics == 'paper':
            raise InputError('--save_maps needs the maps of whole images: leave out --metrics '
                             'paper')
        self.images, self.crop, self.inference = images, crop, inference
        self.run_folder, self.options, self.hits = run, options, hits
        self.names, self.saved = names, names[-1]
        self.thresholds = thresholds_of(options.threshold, options.sweep)
        self.chosen = int(np.searchsorted(self.thresholds, options.threshold))
        self.bad = BadImages(images, run.file('bad_images.txt'))
        self.accumulators = {name: EvaluationMetrics(self.thresholds, hits is not None)
                             for name in names}
        self.records: dict[str, dict] = {name: {} for name in names}

    def run(self, maps_of_batch: MapsOfBatch) -> dict[str, dict] | None:
        """The metrics of each kind of maps, on rank 0; None on other ranks."""
        begin = time.monotonic()
        views = {'image': eval_transform(self.crop.resize, self.crop.crop)}
        if self.options.metrics == 'all':
            views['whole'] = eval_transform(BENCHMARK_SIDE)

        def measure_batch(batch: dict) -> dict[str, list[Measurement]]:
            maps = maps_of_batch(batch)
            if self.options.save_maps:
                self._save_maps(batch, maps[self.saved])
            return {name: self._measure(batch, maps[name]) for name in self.names}

        for measured in self.inference.map(EvalImages(self.images, **views), measure_batch,
                                           'localizing', self.bad):
            for name in self.names:
                for measurement in measured[name]:
                    self._accumulate(name, measurement)
        self._merge_ranks()
        if not is_main_process():
            return None
        self.seconds = time.monotonic() - begin
        metrics = {name: self._compute(name) for name in self.names}
        self._write_tables(metrics)
        return metrics

    def _merge_ranks(self) -> None:
        """Gather what the ranks have accumulated, on rank 0."""
        gathered = gather_to_main((self.accumulators, self.records, self.bad.names))
        if not is_main_process():
            return
        for accumulators, records, _ in gathered[1:]:
            for name in self.names:
                self.accumulators[name].merge(accumulators[name])
                self.records[name].update(records[name])
        if self.inference.options.skip_bad:
            self.bad.write(names for *_, names in gathered)

    def _measure(self, batch: dict, maps: list[ScoreMaps]) -> list[Measurement]:
        return [self._measure_image(index, maps_of_image, tuple(size))
                for index, size, maps_of_image in zip(
                    batch['index'].tolist(), batch['size'].tolist(), maps, strict=True)]

    def _measure_image(self, index: int, maps: ScoreMaps, size: tuple[int, int]) -> Measurement:
        boxes = None if self.images.boxes is None else self.images.boxes[index]
        path = self.images.segmentation_path(index)
        mask = None
        if path and boxes is not None and maps.whole is not None:
            mask = read_binary_mask(path)
        return measure(index, maps, size, boxes, self.crop, self.thresholds, mask)

    def _accumulate(self, name: str, image: Measurement) -> None:
        if self.images.boxes is not None:
            hits = (False, False)
            if self.hits is not None:
                hits = self.hits[self.images.name(image.index)]
            self.accumulators[name].accumulate(image, hits)
        self.records[name][image.index] = (image.size, image.has_box,
                                           image.localizations[self.chosen])

    def _compute(self, name: str) -> dict:
        if self.images.boxes is None:
            return {'count': len(self.records[name])}
        return self.accumulators[name].compute(self.options.threshold, self.options.sweep)

    def _save_maps(self, batch: dict, maps: list[ScoreMaps]) -> None:
        for index, maps_of_image in zip(batch['index'].tolist(), maps, strict=True):
            path = self.run_folder.file('maps') / f'{self.images.name(index)}.npy'
            score_map = maps_of_image.whole.astype(np.float32)
            atomic_write(path, lambda file, content=score_map: np.save(file, content))

    def _write_tables(self, metrics: dict[str, dict]) -> None:
        several = len(self.names) > 1 or self.names != ('SPOL',)
        for name in self.names:
            prefix, records = f'{name}-' if several else '', self.records[name]
            file = self.run_folder.file
            write_boxes(file(f'{prefix}boxes.csv'), self.images, records, self.crop)
            if self.images.boxes is not None:
                write_classes(file(f'{prefix}classes.csv'), self.images, records, self.hits)
                if self.options.sweep:
                    write_sweep(file(f'{prefix}sweep.csv'), metrics[name]['sweep'])
        if self.options.sweep and self.images.boxes is not None:
            curves = sweep_curves({name: metrics[name]['sweep'] for name in self.names})
            atomic_write(self.run_folder.file('sweep.png'), lambda file: file.write(curves))

    def print_summary(self, metrics: dict[str, dict]) -> None:
        if self.images.boxes is None:
            print(f'{self.images.source} has no boxes: no localization metrics')
            return
        for name in self.names:
            label = name if name == 'SPOL' else f'{name} CAM'
            print(summarize(label, metrics[name], self.options.threshold))
        if self.images.segmentation and self.options.metrics == 'all' and (
                metrics[self.saved]['pxap'] is None):
            print(f'no PxAP: the masks in {self.images.segmentation} have no foreground '
                  '(white is 255)')
