"""The score maps of images, by the networks, and the measurements of these maps.

The paper's protocol looks at the view 'image', a centre crop. The benchmark's looks at the view
'whole', the whole image at 224 x 224, where the batch has it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.data.datasets import EvalImages
from utils.data.images import read_binary_mask
from utils.data.lists import ImageList
from utils.engine.inference import Inference, Predictor, labels_of
from utils.localization.boxes import CentreCrop
from utils.localization.losses import segmentation_probability
from utils.localization.measurement import Measurement, ScoreMaps, measure
from utils.localization.metrics import BENCHMARK_SIDE
from utils.localization.pseudo_mask import scaled_cam
from utils.outputs.bad_images import BadImages
from utils.outputs.files import write_array

# A batch of `EvalImages` -> for each kind of maps (SPOL, deep, fused) those of the images.
Scorer = Callable[[dict], dict[str, list[ScoreMaps]]]


def segmentation_maps(predict: Predictor, batch: dict) -> dict[str, list[ScoreMaps]]:
    """SPOL's maps: the foreground probabilities."""
    views = [segmentation_probability(predict(batch[view]), batch[view].shape[1])
             for view in ('image', 'whole') if view in batch]
    views = [predict.transfer.download(view).numpy() for view in views]
    return {'SPOL': [ScoreMaps(*maps) for maps in zip(*views, strict=True)]}


def cam_maps(predict: Predictor, images: ImageList, kinds: tuple[str, ...], batch: dict
             ) -> dict[str, list[ScoreMaps]]:
    """The `deep` (plain) and `fused` CAMs of each image's true class; `kinds`: which of them.
    `predict` runs `CamNet.class_cams`."""
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


def write_maps(folder: Path, images: ImageList, batch: dict, maps: list[ScoreMaps]) -> None:
    """Write the maps of the whole images, float32, to `<folder>/<image name>.npy`."""
    for index, maps_of_image in zip(batch['index'].tolist(), maps, strict=True):
        write_array(folder / f'{images.name(index)}.npy', maps_of_image.whole.astype(np.float32))


def measure_list(score_maps: Scorer, images: ImageList, crop: CentreCrop, inference: Inference,
                 thresholds: np.ndarray, bad: BadImages, whole: bool = True,
                 map_folder: Path | None = None) -> Iterator[tuple[str, Measurement]]:
    """Yield what the maps of this rank's images give, as `measure_batch`.

    `whole`: whether the whole image is measured too; `map_folder`: where the maps of the last kind
    are written, if at all.
    """
    def measurements_of(batch: dict) -> list[tuple[str, Measurement]]:
        maps = score_maps(batch)
        if map_folder is not None:
            write_maps(map_folder, images, batch, list(maps.values())[-1])
        return measure_batch(maps, batch, images, crop, thresholds)

    views = {'image': crop, 'whole': CentreCrop(BENCHMARK_SIDE)} if whole else {'image': crop}
    dataset = EvalImages(images, **views)
    for measurements in inference.map(dataset, measurements_of, 'localizing', bad):
        yield from measurements


def measure_batch(maps: dict[str, list[ScoreMaps]], batch: dict, images: ImageList,
                  crop: CentreCrop, thresholds: np.ndarray) -> list[tuple[str, Measurement]]:
    """(kind of maps, measurement) of each image of a batch."""
    measurements = []
    for number, (index, size) in enumerate(zip(batch['index'].tolist(), batch['size'].tolist(),
                                               strict=True)):
        boxes = None if images.boxes is None else images.boxes[index]
        path = images.segmentation_path(index)
        mask = read_binary_mask(path) if path and boxes is not None and 'whole' in batch else None
        measurements += [(kind, measure(index, images.name(index), maps[kind][number], tuple(size),
                                        boxes, crop, thresholds, mask)) for kind in maps]
    return measurements
