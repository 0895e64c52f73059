"""The objects of a picture: the regions of its score map above the threshold."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from utils.boxes import XYXY, Box, contours_of, iou, largest_box
from utils.images import resize

MIN_SHARE = 0.01  # of the image; smaller regions are not objects of their own
SHIFT = 0.1       # of the threshold, for the score of a box


class Region(NamedTuple):
    """A connected foreground region of an image of H x W pixels: its bounding box, its mask (bool
    H x W), and how stable the box is (`box_stability`)."""

    box: Box
    mask: np.ndarray
    score: float


def find_regions(score_map: np.ndarray, threshold: float, size: tuple[int, int],
                 objects: str = 'largest') -> list[Region]:
    """The regions of a map of a whole image, float32 S x S in [0, 1], in an image of size (H, W).

    `objects`: `largest`, the region that `largest_box` encloses; or `all`, every region of at
    least MIN_SHARE of the image, the largest first.
    """
    foreground = resize(score_map, size) > score_map.dtype.type(threshold)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(foreground.view(np.uint8))
    scale = np.array(size)[XYXY] / np.array(score_map.shape)[XYXY]
    areas = statistics[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # the background
    if objects == 'all':
        found = [n for n in np.argsort(-areas) if areas[n] >= MIN_SHARE * foreground.size]
    else:
        box = largest_box(score_map, threshold)
        x0, y0, x1, y1 = np.round(scale * box).astype(int) if box else (0, 0, 0, 0)
        inside = np.bincount(labels[y0:y1, x0:x1].ravel(), minlength=len(areas))[1:]
        found = [1 + inside.argmax()] if inside.any() else []
    regions = []
    for number in found:
        x, y, width, height = statistics[number, :4].tolist()
        box = x, y, x + width, y + height
        score = box_stability(score_map, threshold, (box / scale).tolist())
        regions.append(Region(box, labels == number, score))
    return regions


def box_stability(score_map: np.ndarray, threshold: float, box: Sequence[float]) -> float:
    """How little a box depends on the threshold: the IoU of the boxes at the threshold - 0.1 and
    + 0.1 (at most 0.99), of several those that overlap `box` most; 0 where there is none.

    `box` is in pixels of the map.
    """
    found = []
    for shifted in (threshold - SHIFT, max(threshold, min(threshold + SHIFT, 0.99))):
        contours = contours_of(score_map > score_map.dtype.type(max(shifted, 0)))
        if not contours:
            return 0.0
        boxes = np.array([cv2.boundingRect(contour) for contour in contours])
        boxes[:, 2:] += boxes[:, :2]
        found.append(boxes[iou(boxes, np.asarray(box)).argmax()])
    return float(iou(*found))
