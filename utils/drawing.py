"""Visualizations: maps over images, boxes, contact sheets of what a network makes of a list.

All images are RGB, uint8, H x W x 3.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.boxes import CentreCrop, contours_of, iou, largest_box
from utils.distributed import is_main_process
from utils.files import write_png
from utils.images import read_image
from utils.lists import ImageList
from utils.losses import segmentation_probability
from utils.pseudo_mask import gaussian_prior, pseudo_mask, scaled_cam, seg_target

TITLE_HEIGHT, GAP, STRIPES = 26, 4, 8
GT_COLOUR, PRED_COLOUR, OUTLINE_COLOUR = (40, 200, 60), (250, 60, 40), (255, 220, 0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
CAM_TITLES = ['image', 'plain CAM', 'fused CAM', 'Gaussian prior', 'pseudo mask', 'box of the CAM']
SEG_TITLES = ['image', 'probability', 'mask', 'box']


def heatmap(image: np.ndarray, score_map: np.ndarray) -> np.ndarray:
    """A map in [0, 1], H x W, in perceptually uniform colours (inferno) over the grey image."""
    levels = (255 * np.clip(score_map, 0, 1)).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(grey, 0.3, colours, 0.7, 0)


def target_image(foreground: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A segmentation target (bool H x W each): foreground white, background black, and what the
    loss ignores hatched."""
    rows, columns = np.indices(foreground.shape)
    hatching = np.where((rows + columns) % STRIPES < STRIPES // 4, 210, 40)
    grey = np.where(foreground, 255, np.where(valid, 0, hatching))
    return cv2.cvtColor(grey.astype(np.uint8), cv2.COLOR_GRAY2RGB)


def outline(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """The outline of `foreground` (bool H x W) over the image, which is darkened outside."""
    picture = np.where(foreground[..., None], image, image // 3)
    return cv2.drawContours(picture, contours_of(foreground), -1, OUTLINE_COLOUR,
                            line_width(image))


def draw_boxes(image: np.ndarray, gt_boxes: np.ndarray | None, box: tuple | None) -> np.ndarray:
    """Ground-truth boxes (K, 4) in green and the predicted `box` in red."""
    picture = image.copy()
    boxes = [] if gt_boxes is None else [(corners, GT_COLOUR) for corners in gt_boxes]
    if box is not None:
        boxes.append((box, PRED_COLOUR))
    for corners, colour in boxes:
        x0, y0, x1, y1 = np.round(corners).astype(int).tolist()
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, line_width(image))
    return picture


def line_width(image: np.ndarray) -> int:
    return max(1, round(max(image.shape[:2]) / 110))


def overlay(image: np.ndarray, foreground: np.ndarray, box: tuple | None, text: str) -> np.ndarray:
    """The image with the outline of `foreground` (bool H x W), the box, and the text on a bar at
    the top."""
    picture = draw_boxes(outline(image, foreground), None, box)
    if text:
        bar = text_bar(text, max(TITLE_HEIGHT, image.shape[1] // 30), image.shape[1], WHITE,
                       PRED_COLOUR)
        picture[:len(bar)] = bar[:len(picture)]
    return picture


class Row(NamedTuple):
    """A row of a contact sheet: pictures of any size, one for each title, and a caption."""

    pictures: list[np.ndarray]
    caption: str = ''


def contact_sheet(rows: list[Row], titles: list[str], side: int = 160) -> np.ndarray:
    """Rows of pictures, each fitted into side x side, below their titles. A row is as high as its
    highest picture, and its caption is below it."""
    step = side + GAP
    sheet = [np.hstack([text_bar(title, TITLE_HEIGHT, step) for title in titles])]
    for row in rows:
        cells = [fit(picture, side) for picture in row.pictures]
        height = max(map(len, cells)) + GAP
        sheet.append(np.hstack([
            np.pad(cell, ((0, height - len(cell)), (0, step - cell.shape[1]), (0, 0)),
                   constant_values=255) for cell in cells]))
        if row.caption:
            sheet.append(text_bar(row.caption, TITLE_HEIGHT, len(cells) * step))
    return np.vstack(sheet)


def fit(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture made to fit into side x side, its aspect ratio kept."""
    scale = side / max(picture.shape[:2])
    size = [max(1, round(scale * length)) for length in picture.shape[1::-1]]
    return cv2.resize(picture, size,
                      interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def text_bar(text: str, height: int, width: int, colour: tuple = BLACK, background: tuple = WHITE
             ) -> np.ndarray:
    """A line of text, as large as it fits."""
    bar = np.full((height, width, 3), background, np.uint8)
    (length, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1, 1)
    scale = min(height / 50, (width - 4) / max(length, 1))
    return cv2.putText(bar, text, (2, 2 * height // 3), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1,
                       cv2.LINE_AA)


# ---------------------------------------------------------------- contact sheets of a list


class View(NamedTuple):
    """What the network sees of an image: 1 x H x W x 3, float32 in [0, 1], the same as a picture,
    uint8, and the true boxes in it, (K, 4) (None: not known)."""

    index: int
    batch: Tensor
    picture: np.ndarray
    boxes: np.ndarray | None


def spread_views(images: ImageList, crop: CentreCrop, count: int) -> Iterator[View]:
    """`count` images spread evenly over the list, which is often sorted by class."""
    for index in images.sample(count) if count else ():
        image, boxes = read_image(images.path(index)), None
        pixels = crop.view(image)
        if images.boxes is not None:
            boxes = crop.true_boxes(images.boxes[index], image.shape[:2])
        yield View(index, torch.from_numpy(pixels)[None], np.round(255 * pixels).astype(np.uint8),
                   boxes)


def cam_rows(predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], images: ImageList,
             crop: CentreCrop, count: int, threshold: float) -> list[Row]:
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
             threshold: float) -> list[Row]:
    """Rows of SEG_TITLES; `predict`: a batch of views -> logits."""
    rows = []
    for view in spread_views(images, crop, count):
        probability = segmentation_probability(predict(view.batch), crop.side)[0]
        probability = probability.float().cpu().numpy()
        rows.append(row_of(view, [heatmap(view.picture, probability),
                                  outline(view.picture, probability > threshold)],
                           probability, threshold))
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
