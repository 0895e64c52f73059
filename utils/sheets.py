"""Contact sheets of what a stage sees and makes of it, for some of its images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.boxes import CentreCrop, clip_to_image, iou, largest_box
from utils.device import Normalize
from utils.distributed import is_main_process
from utils.drawing import Row, contact_sheet, draw_boxes, heatmap, outline, target_image
from utils.files import write_png
from utils.images import BadImageError, read_image, read_stored_mask, resize_nearest
from utils.lists import ImageList
from utils.losses import segmentation_probability
from utils.pseudo_mask import gaussian_prior, pseudo_mask, scaled_cam, seg_target

CAM_TITLES = ['image', 'plain CAM', 'fused CAM', 'Gaussian prior', 'pseudo mask', 'box of the CAM']
SEG_TITLES = ['image', 'pseudo mask', 'probability', 'mask', 'box']
SEG_TEST_TITLES = ['image', 'probability', 'mask', 'box']
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

    @property
    def batch(self) -> Tensor:
        return torch.from_numpy(self.pixels)[None]


def spread_views(images: ImageList, crop: CentreCrop, count: int) -> Iterator[View]:
    """`count` images spread evenly over the list, which is often sorted by class: of equal parts
    of the list, the first image of each that can be decoded."""
    for part in np.array_split(np.arange(len(images)), min(count, len(images))) if count else ():
        for index in part.tolist():
            try:
                image = read_image(images.path(index))
            except BadImageError:
                continue
            boxes, size = None, image.shape[:2]
            if images.boxes is not None:
                boxes = crop.to_crop(clip_to_image(images.boxes[index], size), size)
            yield View(index, crop.view(image), boxes)
            break


def cam_rows(predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], images: ImageList,
             crop: CentreCrop, count: int, threshold: float = 0.2) -> list[Row]:
    """Rows of CAM_TITLES; `predict`: a batch of views and classes -> its (deep, fused) CAMs."""
    rows, ious = [], []
    for view in spread_views(images, crop, count):
        label = torch.from_numpy(images.labels[[view.index]])
        deep, fused = (scaled_cam(cam[0].float().cpu().numpy(), crop.side)
                       for cam in predict(view.batch, label))
        target = seg_target(pseudo_mask(fused, (crop.side, crop.side)))
        boxes, found = box_picture(view, fused, threshold)
        rows.append([view.picture, heatmap(view.picture, deep), heatmap(view.picture, fused),
                     heatmap(view.picture, gaussian_prior(fused)), target_image(*target), boxes])
        ious.append(found)
    return with_captions(rows, ious)


def seg_rows(predict: Callable[[Tensor], Tensor], images: ImageList, crop: CentreCrop, count: int,
             threshold: float, masks: Path | None = None) -> list[Row]:
    """Rows of SEG_TITLES, without the pseudo mask if `masks`, their folder, is not given;
    `predict`: a batch of views -> logits."""
    rows, ious = [], []
    for view in spread_views(images, crop, count):
        probability = segmentation_probability(predict(view.batch), crop.side)[0]
        probability = probability.float().cpu().numpy()
        boxes, found = box_picture(view, probability, threshold)
        target = []
        if masks:
            stored = read_stored_mask(images.mask_path(masks, view.index))
            stored = resize_nearest(stored, (crop.resize, crop.resize))[crop.kept, crop.kept]
            target = [target_image(*seg_target(stored))]
        rows.append([view.picture, *target, heatmap(view.picture, probability),
                     outline(view.picture, probability > threshold), boxes])
        ious.append(found)
    return with_captions(rows, ious)


def box_picture(view: View, score_map: np.ndarray, threshold: float
                ) -> tuple[np.ndarray, float | None]:
    """The picture of the true and the predicted box, and their IoU where the truth is known."""
    box, found = largest_box(score_map, threshold), None
    if view.boxes is not None:
        truth = view.boxes[~np.isnan(view.boxes[:, 0])]
        found = 0.0 if box is None else float(iou(np.array(box), truth).max(initial=0))
    return draw_boxes(view.picture, view.boxes, box), found


def with_captions(rows: list[list[np.ndarray]], ious: list[float | None]) -> list[Row]:
    """The rows with their IoUs, the best and the worst marked."""
    known = [found for found in ious if found is not None]
    result = []
    for pictures, found in zip(rows, ious, strict=True):
        caption, mark = '' if found is None else f'IoU {found:.2f}', (255, 255, 255)
        if len(known) > 1 and found == max(known):
            caption, mark = f'{caption}, best', BEST
        elif len(known) > 1 and found == min(known):
            caption, mark = f'{caption}, worst', WORST
        result.append(Row(pictures, caption, mark))
    return result


def write_sheet(path: Path, rows: list[Row], titles: list[str]) -> None:
    if rows and is_main_process():
        write_png(path, contact_sheet(rows, titles))


def prepared_for(model: nn.Module) -> Callable[..., list[Tensor]]:
    """A batch of views, and further tensors -> the input of a network in training, on its
    device."""
    device = next(model.parameters()).device
    normalize = Normalize(model.mean, model.std).to(device)
    return lambda views, *more: [normalize(views.to(device)), *(part.to(device) for part in more)]


@torch.no_grad()
def draw_cams(model: nn.Module, *what: Any) -> np.ndarray | None:
    """The contact sheet of a network in training; `what`: the arguments of `cam_rows`."""
    prepare = prepared_for(model)
    rows = cam_rows(lambda views, labels: model.class_cams(*prepare(views, labels)), *what)
    return contact_sheet(rows, CAM_TITLES) if rows else None


@torch.no_grad()
def draw_segmentations(model: nn.Module, *what: Any) -> np.ndarray | None:
    """The contact sheet of a network in training; `what`: the arguments of `seg_rows`."""
    prepare = prepared_for(model)
    rows = seg_rows(lambda views: model(*prepare(views)), *what)
    return contact_sheet(rows, SEG_TITLES) if rows else None
