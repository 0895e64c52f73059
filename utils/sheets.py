"""Contact sheets of what a stage sees and makes of it, for some of its images."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from utils.boxes import CentreCrop, iou, largest_box
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


class View(NamedTuple):
    """What the network sees of an image: 1 x H x W x 3, float32 in [0, 1], the same as a picture,
    uint8, and the true boxes in it, (K, 4) (None: not known)."""

    index: int
    batch: Tensor
    picture: np.ndarray
    boxes: np.ndarray | None


def spread_views(images: ImageList, crop: CentreCrop, count: int) -> Iterator[View]:
    """`count` images spread evenly over the list, which is often sorted by class: of equal parts
    of the list, the first image of each that can be decoded."""
    for part in np.array_split(np.arange(len(images)), min(count, len(images))) if count else ():
        for index in part.tolist():
            try:
                image = read_image(images.path(index))
            except BadImageError:
                continue
            pixels, boxes = crop.view(image), None
            if images.boxes is not None:
                boxes = crop.true_boxes(images.boxes[index], image.shape[:2])
            yield View(index, torch.from_numpy(pixels)[None],
                       np.round(255 * pixels).astype(np.uint8), boxes)
            break


def cam_rows(predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], images: ImageList,
             crop: CentreCrop, count: int, threshold: float = 0.2) -> list[Row]:
    """Rows of CAM_TITLES; `predict`: a batch of views and classes -> its (deep, fused) CAMs."""
    rows = []
    for view in spread_views(images, crop, count):
        deep, fused = (scaled_cam(cam[0].float().cpu().numpy(), crop.side) for cam in
                       predict(view.batch, torch.from_numpy(images.labels[[view.index]])))
        target = seg_target(pseudo_mask(fused, (crop.side, crop.side)))
        maps = [heatmap(view.picture, found) for found in (deep, fused, gaussian_prior(fused))]
        rows.append(row_of(view, [*maps, target_image(*target)], fused, threshold))
    return rows


def seg_rows(predict: Callable[[Tensor], Tensor], images: ImageList, crop: CentreCrop, count: int,
             threshold: float, masks: Path | None = None) -> list[Row]:
    """Rows of SEG_TITLES, without the pseudo mask if `masks`, their folder, is not given;
    `predict`: a batch of views -> logits."""
    rows = []
    for view in spread_views(images, crop, count):
        probability = segmentation_probability(predict(view.batch), crop.side)[0]
        probability = probability.float().cpu().numpy()
        pictures = [heatmap(view.picture, probability),
                    outline(view.picture, probability > threshold)]
        if masks:
            stored = read_stored_mask(images.mask_path(masks, view.index))
            stored = resize_nearest(stored, (crop.resize, crop.resize))[crop.kept, crop.kept]
            pictures.insert(0, target_image(*seg_target(stored)))
        rows.append(row_of(view, pictures, probability, threshold))
    return rows


def row_of(view: View, pictures: list[np.ndarray], score_map: np.ndarray, threshold: float) -> Row:
    """The pictures between the image and that of its true and predicted boxes, whose IoU is the
    caption where it is known."""
    box, caption = largest_box(score_map, threshold), ''
    if view.boxes is not None:
        caption = f'IoU {iou(box or (0, 0, 0, 0), view.boxes).max(initial=0):.2f}'
    return Row([view.picture, *pictures, draw_boxes(view.picture, view.boxes, box)], caption)


def write_sheet(path: Path, rows: list[Row], titles: list[str]) -> None:
    if rows and is_main_process():
        write_png(path, contact_sheet(rows, titles))


@torch.no_grad()
def draw_cams(model: nn.Module, *what: Any) -> np.ndarray | None:
    """The contact sheet of a network in training; `what`: the arguments of `cam_rows`."""
    rows = cam_rows(lambda *batch: model.class_cams(*prepared(model, *batch)), *what)
    return contact_sheet(rows, CAM_TITLES) if rows else None


@torch.no_grad()
def draw_segmentations(model: nn.Module, *what: Any) -> np.ndarray | None:
    """The contact sheet of a network in training; `what`: the arguments of `seg_rows`."""
    rows = seg_rows(lambda views: model(*prepared(model, views)), *what)
    return contact_sheet(rows, SEG_TITLES) if rows else None


def prepared(model: nn.Module, views: Tensor, *more: Tensor) -> list[Tensor]:
    """A batch of views, and further tensors -> the input of a network, on its device."""
    device = next(model.parameters()).device
    normalize = Normalize(model.mean, model.std).to(device)
    return [normalize(views.to(device)), *(part.to(device) for part in more)]
