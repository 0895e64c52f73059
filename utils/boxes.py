"""Boxes, the last step of SPOL: (x0, y0, x1, y1) in continuous pixels, x1 and y1 exclusive."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from utils.images import resize

Box = tuple[int, int, int, int]
MIN_SHARE = 0.01  # of the image; smaller regions are not objects of their own
SHIFT = 0.1       # of the threshold, for the score of a box


def contours_of(foreground: np.ndarray, offset: tuple[int, int] = (0, 0)
                ) -> Sequence[np.ndarray]:
    """The contours of a bool map H x W, outer and inner ones, moved by `offset` = (x, y)."""
    return cv2.findContours(foreground.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE,
                            offset=offset)[0]


def largest_box(probability: np.ndarray, threshold: float) -> Box | None:
    """The bounding box of the contour of largest area, the first of equals; None without a contour.

    `probability`: 2-d float map; foreground is what exceeds the threshold, compared in the map's
    own precision.
    """
    contours = contours_of(probability > probability.dtype.type(threshold))
    if not contours:
        return None
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return x, y, x + width, y + height


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
    scale = np.array([size[1], size[0]] * 2) / np.array([*score_map.shape[::-1]] * 2)
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
        score = box_stability(score_map, threshold, box / scale)
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


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4), broadcast together; 0 where both are empty."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = sides.clip(0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).clip(0).prod(-1) for box in (a, b))
    union = area_a + area_b - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def clip_to_image(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (..., 4) in an image of size (H, W), clipped to 0 ... W-1 and 0 ... H-1."""
    height, width = size
    return np.clip(boxes, 0, [width - 1, height - 1, width - 1, height - 1])


@dataclass(frozen=True)
class CentreCrop:
    """What the network sees of an image: resized to resize x resize, then its central crop x crop
    pixels (0 = all of it)."""

    resize: int
    crop: int = 0

    @property
    def side(self) -> int:
        return self.crop or self.resize

    @property
    def offset(self) -> int:
        return (self.resize - self.side) // 2

    @property
    def kept(self) -> slice:
        """The rows, and the columns, of the resized image that the crop keeps."""
        return slice(self.offset, self.offset + self.side)

    def view(self, image: np.ndarray) -> np.ndarray:
        """An image, uint8 H x W x 3 -> the crop, float32 in [0, 1], side x side x 3.

        The image becomes float32 before it is resized. Resizing bytes would round to whole grey
        levels, which moves boxes by pixels and changes pseudo masks.
        """
        resized = resize(image / np.float32(255), (self.resize, self.resize))
        return resized[self.kept, self.kept]

    def to_crop(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Boxes (..., 4) of an image of size (H, W) -> the same in pixels of the crop, clipped to
        it; NaN where nothing is left."""
        height, width = size
        scale = np.array([self.resize / width, self.resize / height] * 2)
        boxes = np.clip(np.asarray(boxes, np.float64) * scale - self.offset, 0, self.side)
        empty = (boxes[..., 2] <= boxes[..., 0]) | (boxes[..., 3] <= boxes[..., 1])
        return np.where(empty[..., None], np.nan, boxes)

    def from_crop(self, box: Box, size: tuple[int, int]) -> np.ndarray:
        """The inverse of `to_crop` for one box: (4,) float64 in pixels of the original image."""
        height, width = size
        scale = np.array([width / self.resize, height / self.resize] * 2)
        return (np.array(box, np.float64) + self.offset) * scale
