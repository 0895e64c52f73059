"""seg/test, and cam/test --evaluate: how well maps localize the objects of a list.

    network, in threads or on a GPU     the outputs of a batch        utils/inference.py
    score_maps                          outputs -> score maps
    measure, stack, concatenate         maps -> a table of arrays     utils/evaluation.py
    summarize                           table -> metrics
    write_tables, print_summary         metrics -> files and text     utils/tables.py
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from utils.boxes import CentreCrop
from utils.distributed import sum_over_ranks
from utils.errors import InputError
from utils.evaluation import SWEEP_THRESHOLDS, Evaluated, concatenate, measure, stack, summarize
from utils.files import write_array
from utils.images import read_true_mask
from utils.inference import ListInference, Predictor
from utils.lists import ImageList
from utils.losses import segmentation_probability
from utils.metrics import BENCHMARK_SIDE
from utils.pseudo_mask import scaled_cam
from utils.results import RunFolder
from utils.tables import print_summary, size_warning, write_tables
from utils.top1top5 import Hits


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
    tables = {kind: with_hits(concatenate([part[kind] for part in parts]), images, hits)
              for kind in kinds}
    seconds, metrics = time.monotonic() - begin, {}
    for kind, table in tables.items():
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


def with_hits(results: Evaluated, images: ImageList, hits: Hits | None) -> Evaluated:
    """The table with the classifier's hits."""
    if hits is None:
        return results
    return results._replace(hits=np.array([hits[images.name(index)] for index in results.index]))


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
