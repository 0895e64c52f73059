"""Boxes, the last step of SPOL: (x0, y0, x1, y1) in continuous pixels, x1 and y1 exclusive."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.images import resize

Box = tuple[int, int, int, int]
XYXY = [1, 0, 1, 0]  # places of (H, W): the sides of an image for x0, y0, x1 and y1


def contours_of(foreground: np.ndarray) -> Sequence[np.ndarray]:
    """The contours of a bool map H x W, outer and inner ones."""
    return cv2.findContours(foreground.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]


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


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4), broadcast together; 0 where both are empty."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    overlap = np.where([True, True, False, False], np.maximum(a, b), np.minimum(a, b))
    area_a, area_b, common = ((box[..., 2:] - box[..., :2]).clip(0).prod(-1)
                              for box in (a, b, overlap))
    union = area_a + area_b - common
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)


@dataclass(frozen=True)
class CentreCrop:
    """What the network sees of an image: resized to resize x resize, its central crop x crop pixels
    (0: all)."""

    resize: int
    crop: int = 0

    @property
    def side(self) -> int:
        return self.crop or self.resize

    @property
    def offset(self) -> int:
        return (self.resize - self.side) // 2

    def view(self, image: np.ndarray) -> np.ndarray:
        """An image, uint8 H x W x 3 -> the crop, float32 in [0, 1], side x side x 3."""
        kept = slice(self.offset, self.offset + self.side)
        # Resizing bytes would round to whole grey levels, which moves boxes by pixels.
        return resize(image / np.float32(255), (self.resize, self.resize))[kept, kept]

    def to_crop(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Boxes (..., 4) of an image of size (H, W) -> the same in pixels of the crop, clipped to
        it; NaN where nothing is left."""
        boxes = (boxes * (self.resize / np.array(size)[XYXY]) - self.offset).clip(0, self.side)
        empty = (boxes[..., 2:] <= boxes[..., :2]).any(-1, keepdims=True)
        return np.where(empty, np.nan, boxes)

    def true_boxes(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The ground-truth boxes (K, 4) of an image, which may reach beyond it -> what the crop
        has of them, (up to K, 4) in its pixels."""
        boxes = self.to_crop(np.clip(boxes, 0, np.array(size)[XYXY] - 1), size)
        return boxes[~np.isnan(boxes[:, 0])]

    def from_crop(self, box: Box, size: tuple[int, int]) -> np.ndarray:
        """The inverse of `to_crop` for one box: (4,) float64 in pixels of the original image."""
        return (np.array(box) + self.offset) * (np.array(size)[XYXY] / self.resize)
