"""Reference implementations for the benchmark: the same results by straightforward code."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from network import CamNet
from utils.data.images import read_image, resize
from utils.data.lists import ImageList
from utils.localization.boxes import Box, contours_of
from utils.localization.metrics import BENCHMARK_SIDE, THRESHOLDS, normalise_map
from utils.localization.pseudo_mask import MIN_CONTOUR_AREA

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def transform(photo: np.ndarray, side: int = 256) -> np.ndarray:
    """Normalise all pixels of the photograph, then resize."""
    return resize((photo.astype(np.float32) / 255 - MEAN) / STD, (side, side))


def gaussian_prior(cam: np.ndarray) -> np.ndarray:
    """The formula over the whole image, for one contour after the other."""
    weak = np.where((cam >= 0.1) & (cam <= 0.5), cam, 0).astype(np.float64)
    y, x = np.mgrid[:cam.shape[0], :cam.shape[1]].astype(np.float64)
    prior = np.zeros_like(weak)
    for contour in contours_of(weak > 0):
        if cv2.contourArea(contour) < MIN_CONTOUR_AREA:
            continue
        filled = cv2.drawContours(np.zeros(cam.shape, np.uint8), [contour], -1, 1, cv2.FILLED)
        p = filled * weak
        p /= p.sum()
        dx, dy = x - (p * x).sum(), y - (p * y).sum()
        sx, sy, sxy = ((p * d).sum() / 10 for d in (dx**2, dy**2, dx * dy))
        z = dx**2 / sx - 2 * dx * dy * sxy / (sx * sy) + dy**2 / sy
        prior = np.maximum(prior, np.exp(-z / (2 * (1 - sxy**2 / (sx * sy)))))
    return prior


def pseudo_mask(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As ours, H x W x 3 uint8."""
    cam = resize(cam / (cam.max() + 1e-6), (256, 256))
    channels = np.dstack([255 * cam, 255 * gaussian_prior(cam), np.zeros_like(cam)])
    return resize(channels, size).astype(np.uint8)


def largest_box(probability: np.ndarray, threshold: float) -> Box | None:
    """Sort all contours by their area."""
    foreground = np.where(probability > np.float32(threshold), 255, 0).astype(np.uint8)
    contours = sorted(contours_of(foreground), key=cv2.contourArea, reverse=True)
    if not contours:
        return None
    x, y, width, height = cv2.boundingRect(contours[0])
    return x, y, x + width, y + height


def max_box_acc(score_map: np.ndarray, true_box: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """MaxBoxAccV2 of one image: binarise once for every threshold."""
    levels = (normalise_map(score_map) * 255).astype(np.uint8)
    ious = np.array([_best_iou(levels > int(threshold * levels.max()), true_box)
                     for threshold in THRESHOLDS])
    return ious >= deltas[:, None]


def _best_iou(foreground: np.ndarray, true_box: np.ndarray) -> float:
    """With inclusive pixels, of the best contour's box."""
    best = 0.0
    for x, y, width, height in [cv2.boundingRect(c) for c in contours_of(foreground)] or [(0,) * 4]:
        right, bottom = min(x + width, BENCHMARK_SIDE - 1), min(y + height, BENCHMARK_SIDE - 1)
        left, top, *end = true_box
        both = (max(0, min(right, end[0]) - max(x, left) + 1)
                * max(0, min(bottom, end[1]) - max(y, top) + 1))
        areas = ((right - x + 1) * (bottom - y + 1)
                 + (end[0] - left + 1) * (end[1] - top + 1))
        best = max(best, both / (areas - both))
    return best


def write_png(path: Path, image: np.ndarray) -> None:
    """At zlib's own level 6, straight under the final name."""
    cv2.imwrite(str(path), image, (cv2.IMWRITE_PNG_COMPRESSION, 6))


class _Images(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        photo = read_image(self.images.path(index))
        return transform(photo).transpose(2, 0, 1), photo.shape[:2], index


@torch.no_grad()
def make_pseudo_masks(model: CamNet, images: ImageList, maskpath: Path) -> None:
    """cam/test as one writes it first: float32, one image after the other, two readers."""
    model.eval()
    for image, size, index in DataLoader(_Images(images), num_workers=2):
        cam = model(image)[0, images.labels[index]].numpy()
        path = images.mask_path(maskpath, int(index))
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pseudo_mask(cam, (int(size[0]), int(size[1]))))
