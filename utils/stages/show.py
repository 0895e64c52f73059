"""Contact sheets of what a stage sees and makes of it, for some of its images."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from network.mffnet import CamNet, SegNet
from utils.data.images import BadImageError, read_image, read_stored_mask, resize_nearest
from utils.data.lists import ImageList
from utils.engine.distributed import is_main_process
from utils.engine.normalize import Normalize
from utils.localization.boxes import CentreCrop, clip_to_image
from utils.localization.losses import segmentation_probability
from utils.localization.protocol import localize
from utils.localization.pseudo_mask import gaussian_prior, pseudo_mask, scaled_cam, seg_target
from utils.outputs.drawing import Row, contact_sheet, draw_boxes, heatmap, outline, target_image
from utils.outputs.files import write_png

CAM_TITLES = ['image', 'plain CAM', 'fused CAM', 'Gaussian prior', 'pseudo mask', 'box of the CAM']
SEG_TITLES = ['image', 'pseudo mask', 'probability', 'mask', 'box']
BEST, WORST = (190, 240, 190), (250, 200, 190)


@dataclass(frozen=True)
class View:
    """What the network sees of an image: float32 H x W x 3 in [0, 1], and the true boxes in its
    pixels, (K, 4) (None: not known)."""

    index: int
    pixels: np.ndarray
    boxes: np.ndarray | None

    @property
    def picture(self) -> np.ndarray:
        return np.round(255 * self.pixels).astype(np.uint8)


def views_of(images: ImageList, indices: Iterable[int], crop: CentreCrop) -> Iterator[View]:
    """The views of the images that can be decoded."""
    for index in indices:
        try:
            image = read_image(images.path(index))
        except BadImageError:
            continue
        boxes, size = None, image.shape[:2]
        if images.boxes is not None:
            boxes = crop.to_crop(clip_to_image(images.boxes[index], size), size)
        yield View(index, crop.view(image), boxes)


def spread_views(images: ImageList, crop: CentreCrop, count: int) -> list[View]:
    """`count` images spread evenly over the list, which is often sorted by class: of equal parts
    of the list, the first image of each that can be decoded."""
    parts = np.array_split(np.arange(len(images)), min(count, len(images))) if count else []
    views = (next(views_of(images, part.tolist(), crop), None) for part in parts)
    return [view for view in views if view]


def cam_rows(predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], images: ImageList,
             views: Iterable[View], threshold: float) -> list[Row]:
    """A row for each view; `predict`: a batch of views and classes -> its (deep, fused) CAMs."""
    rows, ious = [], []
    for view in views:
        label = torch.from_numpy(images.labels[[view.index]])
        side = view.pixels.shape[0]
        deep, fused = (scaled_cam(cam[0].float().cpu().numpy(), side)
                       for cam in predict(torch.from_numpy(view.pixels)[None], label))
        target = seg_target(pseudo_mask(fused, (side, side)))
        boxes, iou = _boxes(view, fused, threshold)
        rows.append([view.picture, heatmap(view.picture, deep), heatmap(view.picture, fused),
                     heatmap(view.picture, gaussian_prior(fused)), target_image(*target), boxes])
        ious.append(iou)
    return with_captions(rows, ious)


def seg_rows(predict: Callable[[Tensor], Tensor], views: Iterable[View], threshold: float,
             targets: list[tuple[np.ndarray, np.ndarray]] | None = None) -> list[Row]:
    """A row for each view; `predict`: a batch of views -> logits; `targets`: each view's pseudo
    mask as `seg_target` returns it."""
    rows, ious = [], []
    for number, view in enumerate(views):
        logits = predict(torch.from_numpy(view.pixels)[None])
        probability = segmentation_probability(logits, view.pixels.shape[0])[0]
        probability = probability.float().cpu().numpy()
        boxes, iou = _boxes(view, probability, threshold)
        target = [target_image(*targets[number])] if targets else []
        rows.append([view.picture, *target, heatmap(view.picture, probability),
                     outline(view.picture, probability > threshold), boxes])
        ious.append(iou)
    return with_captions(rows, ious)


def _boxes(view: View, score_map: np.ndarray, threshold: float
           ) -> tuple[np.ndarray, float | None]:
    """The picture of the true and the predicted box, and their IoU."""
    known = view.boxes is not None
    result = localize(score_map, view.boxes if known else np.empty((0, 4)), threshold)
    return draw_boxes(view.picture, view.boxes, result.box), result.iou if known else None


def with_captions(rows: list[list[np.ndarray]], ious: list[float | None]) -> list[Row]:
    """The rows with their IoUs, the best and the worst marked."""
    known = [iou for iou in ious if iou is not None]
    result = []
    for pictures, iou in zip(rows, ious, strict=True):
        caption, mark = '' if iou is None else f'IoU {iou:.2f}', None
        if len(known) > 1 and iou == max(known):
            caption, mark = f'{caption}, best', BEST
        elif len(known) > 1 and iou == min(known):
            caption, mark = f'{caption}, worst', WORST
        result.append(Row(pictures, caption, mark))
    return result


def write_cam_sheet(path: Path, predict: Callable, images: ImageList, crop: CentreCrop, count: int,
                    threshold: float = 0.2) -> None:
    """Write the contact sheet of the CAMs of `count` images, on rank 0."""
    if is_main_process() and (views := spread_views(images, crop, count)):
        rows = cam_rows(predict, images, views, threshold)
        write_png(path, contact_sheet(rows, CAM_TITLES))


def write_seg_sheet(path: Path, predict: Callable, images: ImageList, crop: CentreCrop, count: int,
                    threshold: float) -> None:
    """Write the contact sheet of the segmentations of `count` images, on rank 0."""
    if is_main_process() and (views := spread_views(images, crop, count)):
        titles = [title for title in SEG_TITLES if title != 'pseudo mask']
        write_png(path, contact_sheet(seg_rows(predict, views, threshold), titles))


def cam_drawer(images: ImageList, crop: CentreCrop, count: int, threshold: float = 0.2
               ) -> Callable[[CamNet], np.ndarray] | None:
    """A function that draws the CAMs of `count` images by a network in training."""
    if not count:
        return None

    def draw(model: CamNet) -> np.ndarray:
        normalize, device = _normalize_for(model), next(model.parameters()).device
        views = spread_views(images, crop, count)
        with torch.no_grad():
            rows = cam_rows(
                lambda batch, labels: model.class_cams(normalize(batch), labels.to(device)),
                images, views, threshold)
        return contact_sheet(rows, CAM_TITLES)

    return draw


def seg_drawer(images: ImageList, crop: CentreCrop, mask_folder: Path, count: int,
               threshold: float) -> Callable[[SegNet], np.ndarray] | None:
    """A function that draws the segmentations of `count` images by a network in training,
    beside their pseudo masks."""
    if not count:
        return None

    def draw(model: SegNet) -> np.ndarray:
        normalize = _normalize_for(model)
        views = spread_views(images, crop, count)
        targets = [_stored_target(images.mask_path(mask_folder, view.index), crop)
                   for view in views]
        with torch.no_grad():
            rows = seg_rows(lambda batch: model(normalize(batch)), views, threshold, targets)
        return contact_sheet(rows, SEG_TITLES)

    return draw


def _normalize_for(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Views in a batch -> the network's input, on its device."""
    device = next(model.parameters()).device
    normalize = Normalize(model.mean, model.std).to(device)
    return lambda batch: normalize(batch.to(device))


def _stored_target(path: Path, crop: CentreCrop) -> tuple[np.ndarray, np.ndarray]:
    stored = resize_nearest(read_stored_mask(path), (crop.resize, crop.resize))
    return seg_target(stored[crop.kept, crop.kept])
