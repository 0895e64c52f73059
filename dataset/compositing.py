"""How make_mini.py puts objects into backgrounds: random places, light and blur, exact masks."""

import cv2
import numpy as np
from numpy.random import Generator
from painting import mix

OBJECT_SCALE = {1: (0.45, 0.95), 2: (0.3, 0.5)}  # of the frame, by the number of objects
MAX_OVERLAP = 0.1  # of two objects' boxes, as a share of the smaller one
PLACEMENTS = 20  # tried before an object is left out

Box = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax


def jitter(image: np.ndarray, strength: float, rng: Generator) -> np.ndarray:
    """Vary hue, saturation, brightness, contrast and direction of light.

    image: float32 in 0..1, BGR or premultiplied BGRA. All of it is linear in colour and alpha,
    which is what keeps premultiplied colours right.
    """
    hue, saturation = rng.normal(0, 0.25 * strength), rng.uniform(1 - strength, 1 + strength)
    contrast, pivot = 1 + rng.uniform(-0.5, 0.5) * strength, 0.45
    gains = rng.uniform(1 - 0.8 * strength, 1 + 0.3 * strength) * rng.normal(1, 0.08 * strength, 3)
    turn, _ = cv2.Rodrigues(np.full(3, hue / np.sqrt(3)))  # about the grey axis
    colour = mix(np.full((3, 3), 1 / 3), turn, saturation) * gains[:, None] * contrast
    matrix = np.column_stack([colour, np.full(3, pivot * (1 - contrast))]).astype(np.float32)
    result = image.copy()
    # On BGR, cv2.transform takes the last column as an offset, that is alpha = 1.
    result[..., :3] = cv2.transform(image, matrix) * light_ramp(image.shape, strength, rng)
    result[..., :3] = np.clip(result[..., :3], 0, image[..., 3:] if image.shape[2] == 4 else 1)
    return result


def light_ramp(shape: tuple[int, ...], strength: float, rng: Generator) -> np.ndarray:
    """Brightness (h, w, 1) float32 that changes linearly in a random direction, 1 on average."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = (np.linspace(-1, 1, n, dtype=np.float32) for n in (shape[1], shape[0]))
    ramp = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y[:, None]
    return (1 + np.float32(0.5 * strength * rng.random()) * ramp)[..., None]


def random_frame(size: int, rng: Generator) -> tuple[int, int]:
    """(width, height) between 4:3 and 3:4, the longer side being size."""
    ratio = np.exp(rng.uniform(-1, 1) * np.log(4 / 3))
    return round(size * min(1, ratio)), round(size * min(1, 1 / ratio))


def crop_background(background: np.ndarray, frame: tuple[int, int], rng: Generator) -> np.ndarray:
    """Cut a random part of a (h, w, 3) uint8 image to the frame: float32 BGR in 0..1."""
    height, width = background.shape[:2]
    scale = min(width / frame[0], height / frame[1]) * rng.uniform(0.45, 1)
    w, h = (max(1, int(side * scale)) for side in frame)
    x, y = rng.integers(width - w + 1), rng.integers(height - h + 1)
    crop = background[y:y + h, x:x + w]
    if rng.random() < 0.5:
        crop = cv2.flip(crop, 1)
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return cv2.resize(crop, frame, interpolation=method) / np.float32(255)


def random_part(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A part of a (h, w, 3) image, turned by a multiple of 90 degrees and flipped at random. It is
    small enough to cut up flowers or fruit, which are objects to a class-agnostic segmenter."""
    h, w = (max(1, int(side * rng.uniform(0.35, 0.7))) for side in image.shape[:2])
    y, x = (rng.integers(side - part + 1) for side, part in zip(image.shape, (h, w), strict=False))
    part = np.rot90(image[y:y + h, x:x + w], rng.integers(4))
    return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)


def merge(first: np.ndarray, second: np.ndarray, rng: Generator) -> np.ndarray:
    """Two (h, w, 3) uint8 images side by side, across a border that is sharp or soft; the size of
    the first."""
    height, width = first.shape[:2]
    second = crop_background(second, (width, height), rng)
    angle, sharpness = rng.uniform(0, 2 * np.pi), rng.choice([1, 4, 16])
    x, y = (np.linspace(-1, 1, n, dtype=np.float32) for n in (width, height))
    ramp = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y[:, None]
    share = 1 / (1 + np.exp(-sharpness * (ramp - rng.uniform(-0.5, 0.5))))[..., None]
    return np.round(first * share + 255 * second * (1 - share)).astype(np.uint8)


def object_outline(cutout: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) on the contours of a BGRA object."""
    parts, _ = cv2.findContours((cutout[..., 3] > 127).astype(np.uint8), cv2.RETR_EXTERNAL,
                                cv2.CHAIN_APPROX_SIMPLE)
    return np.concatenate(parts)[:, 0]


def random_placement(outline: np.ndarray, frame: tuple[int, int], scales: tuple[float, float],
                     rng: Generator) -> np.ndarray:
    """(2, 3) affine map that flips, turns, scales and moves the object fully inside the frame."""
    flip, angle = rng.choice([-1.0, 1.0]), np.radians(rng.uniform(-30, 30))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]]) * (flip, 1)
    corners = outline @ turn.T
    extent = np.ptp(corners, axis=0) + 1
    scale = rng.uniform(*scales) * (np.array(frame) / extent).min()
    corner = rng.uniform(0, 1, 2) * (frame - extent * scale) - (corners.min(0) - 0.5) * scale
    return np.column_stack([turn * scale, corner - 0.5])


def free_placement(cutout: np.ndarray, frame: tuple[int, int], taken: list[Box],
                   scales: tuple[float, float], rng: Generator) -> np.ndarray | None:
    """A random placement whose box hardly overlaps those that are taken; None if none is found."""
    outline = object_outline(cutout)
    for _ in range(PLACEMENTS):
        placement = random_placement(outline, frame, scales, rng)
        points = outline @ placement[:, :2].T + placement[:, 2]
        box = (*points.min(0), *points.max(0))
        if all(overlap(box, other) <= MAX_OVERLAP for other in taken):
            return placement
    return None


def overlap(a: Box, b: Box) -> float:
    """Intersection of two boxes as a share of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def mask_box(mask: np.ndarray) -> Box:
    """x, y, x + w, y + h of the bounding rectangle of a (h, w) uint8 mask."""
    x, y, w, h = cv2.boundingRect(mask)
    return x, y, x + w, y + h


def warp_cutout(cutout: np.ndarray, placement: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """Resample a premultiplied BGRA object into the frame: (h, w, 4) float32 in 0..1."""
    scale = np.sqrt(abs(np.linalg.det(placement[:, :2])))
    image = cutout
    if scale < 0.7:  # bilinear sampling alone would alias
        size = [max(1, round(1.4 * scale * side)) for side in (cutout.shape[1], cutout.shape[0])]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    step = np.array([cutout.shape[1] / image.shape[1], cutout.shape[0] / image.shape[0]])
    linear = placement[:, :2] * step
    shift = placement[:, 2] + placement[:, :2] @ ((step - 1) / 2)  # pixel centres
    layer = cv2.warpAffine(image, np.column_stack([linear, shift]), frame, flags=cv2.INTER_LINEAR)
    return layer / np.float32(255)


def paste(image: np.ndarray, cutout: np.ndarray, placement: np.ndarray,
          rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Composite an object into a float32 BGR image: (new image, its mask (h, w) uint8 0 or 255)."""
    layer = warp_cutout(cutout, placement, (image.shape[1], image.shape[0]))
    layer = cv2.GaussianBlur(layer, None, rng.uniform(0.3, 0.7))  # soft edge
    layer = jitter(layer, 0.3, rng)
    alpha = layer[..., 3:]
    return image * (1 - alpha) + layer[..., :3], (alpha[..., 0] > 0.5).astype(np.uint8) * 255


def expose(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Mild blur and sensor noise over the whole image -> uint8 BGR."""
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, None, rng.uniform(0.2, 0.8))
    image = image + rng.uniform(0, 0.02) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


def compose(cutouts: list[np.ndarray], background: np.ndarray, size: int,
            rng: Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """One image of the objects: (h, w, 3) uint8 BGR and a (h, w) uint8 mask, 0 or 255, of each.

    An object that finds no place beside the others is left out.
    """
    frame = random_frame(size, rng)
    image, masks = jitter(crop_background(background, frame, rng), 0.4, rng), []
    for cutout in cutouts:
        placement = free_placement(cutout, frame, [mask_box(mask) for mask in masks],
                                   OBJECT_SCALE[len(cutouts)], rng)
        if placement is not None:
            image, mask = paste(image, cutout, placement, rng)
            masks = [*(cv2.subtract(hidden, mask) for hidden in masks), mask]
    return expose(image, rng), masks
