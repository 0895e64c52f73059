"""Painting primitives of the drawn birds and landscapes.

Drawings use unit coordinates (x right, y down, both 0..1), angles are in radians. A canvas is a
uint8 image, BGR or, for an object, premultiplied BGRA. What is drawn depends on the generator
alone.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike


def bgr(code: str) -> np.ndarray:
    """'#rrggbb' -> (3,) float64 BGR in 0..255."""
    return np.array([int(code[i:i + 2], 16) for i in (5, 3, 1)], float)


def mix(a: np.ndarray, b: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    return a + (b - a) * share


def to_fixed_point(canvas: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unit coordinates -> int32 pixels with 4 fractional bits, for cv2.fillPoly(shift=4)."""
    return np.round(points * (canvas.shape[0] * 16)).astype(np.int32)


def to_values(colours: np.ndarray) -> list[list[float]]:
    """BGR (..., 3) -> list of opaque BGRA; on an empty canvas they paint premultiplied BGRA."""
    colours = np.clip(colours, 0, 255).reshape(-1, 3)
    return np.column_stack([colours, np.full(len(colours), 255)]).tolist()


def fill(canvas: np.ndarray, points: np.ndarray, colour: np.ndarray) -> None:
    """Fill a polygon (N, 2) with an antialiased edge."""
    cv2.fillPoly(canvas, [to_fixed_point(canvas, points)], *to_values(colour), cv2.LINE_AA, 4)


def place(points: ArrayLike, origin: ArrayLike, angle: float = 0, scale: float = 1) -> np.ndarray:
    """Points (N, 2) of a local frame -> the canvas frame."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[c, s], [-s, c]]) * scale + np.asarray(origin)


def circle(centre: ArrayLike, radius: float, squash: float = 1) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return place(np.stack([np.cos(t), squash * np.sin(t)], 1), centre, scale=radius)


def smooth_outline(points: np.ndarray, steps: int = 8) -> np.ndarray:
    """Closed Catmull-Rom spline through points (N, 2) -> (N * steps, 2)."""
    p0, p1, p2, p3 = (np.roll(points, k, axis=0)[:, None] for k in (1, 0, -1, -2))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
    return ((curve + (3 * p1 - p0 - 3 * p2 + p3) * t**3) / 2).reshape(-1, 2)


def vanes(roots: ArrayLike, angles: ArrayLike, lengths: ArrayLike, widths: ArrayLike,
          bends: ArrayLike, tip: float) -> np.ndarray:
    """Outlines (N, 20, 2) of N blades (feathers, leaves, grass); a larger tip is blunter."""
    roots = np.atleast_2d(roots)[:, None]
    angles, lengths, widths, bends = (
        np.reshape(v, (-1, 1)) for v in (angles, lengths, widths, bends))
    t = np.concatenate([np.linspace(0, 1, 10), np.linspace(1, 0, 10)])
    side = np.repeat([1, -1], 10) * np.sin(np.pi * t**tip)
    along, across = lengths * t, widths / 2 * side + bends * lengths * t**2
    c, s = np.cos(angles), np.sin(angles)
    return roots + np.stack([along * c - across * s, along * s + across * c], 2)


def draw_blades(canvas: np.ndarray, colours: np.ndarray, roots: ArrayLike, angles: ArrayLike,
                lengths: ArrayLike, widths: ArrayLike, bends: ArrayLike = 0.0, tip: float = 1.6,
                rim_shade: float = 0.68) -> None:
    """Paint N blades in order, each with a shaded rim, a lit half and its colour from (N, 3)."""
    outer = vanes(roots, angles, lengths, widths, bends, tip)
    inner = vanes(roots, angles, np.multiply(lengths, 0.93), np.multiply(widths, 0.8), bends, tip)
    axis = (inner[:, :10] + inner[:, :9:-1]) / 2
    half = np.concatenate([inner[:, :10], axis[:, ::-1]], 1)
    colours = np.broadcast_to(colours, (len(outer), 3))[:, None] * [[rim_shade], [1], [1.12]]
    polygons = to_fixed_point(canvas, np.stack([outer, inner, half], 1))
    for polygon, value in zip(polygons.reshape(-1, 20, 2), to_values(colours), strict=True):
        cv2.fillPoly(canvas, [polygon], value, cv2.LINE_AA, shift=4)


def noise(rng: Generator, px: int, stretch: tuple[float, float] = (1, 1),
          octaves: int = 6, gain: float = 0.6) -> np.ndarray:
    """Multi-octave value noise (px, px) float32 in 0..1; stretch = features' (height, width)."""
    total = np.zeros((px, px), np.float32)
    for octave in range(octaves):
        cells = [max(2, min(px, round(3 * 2**octave / s))) for s in stretch]
        grid = rng.random(cells, np.float32) * np.float32(gain**octave)
        total += cv2.resize(grid, (px, px), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(total, None, 0, 1, cv2.NORM_MINMAX)


def trim(image: np.ndarray) -> np.ndarray:
    """Cut a BGRA image to the bounding rectangle of its alpha."""
    x, y, w, h = cv2.boundingRect(image[..., 3])
    return image[y:y + h, x:x + w]
