"""The backgrounds that make_mini.py draws: landscapes full of distractors.

Coordinates, angles and canvases are those of painting.py.
"""

from typing import NamedTuple

import cv2
import numpy as np
from draw_birds import HEAD_COLOURS, PLUMAGE
from numpy.random import Generator
from painting import bgr, circle, draw_blades, fill, mix, noise, place, smooth_outline


class Scene(NamedTuple):
    """Texture colours, noise stretch (height, width) and distractors per depth layer."""

    palette: tuple[str, str, str]
    stretch: tuple[float, float]
    leaves: int
    grass: int
    branches: int
    stones: int


SCENES = [
    Scene(('#1c2b14', '#47692a', '#9db257'), (1, 1), 110, 0, 3, 0),  # foliage
    Scene(('#3f4a24', '#7f8a3c', '#c3b86a'), (2, 0.7), 15, 150, 0, 4),  # meadow
    Scene(('#2f2118', '#6d4f37', '#b0916c'), (5, 0.5), 18, 0, 4, 0),  # bark
    Scene(('#8fb0cf', '#b9cbd8', '#e6e8e4'), (0.7, 2), 35, 0, 6, 0),  # sky
    Scene(('#9a7b52', '#c3a877', '#e3d2a8'), (0.4, 1.5), 12, 14, 1, 30),  # sand
    Scene(('#1f3f4d', '#4a7480', '#a9c0bd'), (0.25, 2), 12, 40, 1, 8),  # water
    Scene(('#3b2414', '#84532a', '#c98f4a'), (1, 1), 130, 10, 2, 4),  # leaf litter
    Scene(('#44454a', '#7d7b78', '#b5b0a6'), (1, 1), 20, 12, 1, 45),  # rocks
]


def scene_colours(scene: Scene, n: int, rng: Generator, birds: float = 0) -> np.ndarray:
    """(n, 3) colours of distractors: the scene's own, but a share of birds' colours."""
    palette = np.array([bgr(c) for c in scene.palette])
    own = mix(palette[rng.integers(3, size=n)], palette[rng.integers(3, size=n)], 0.4)
    foreign = np.array([*HEAD_COLOURS.values(), *PLUMAGE])[rng.integers(20, size=n)]
    picked = np.where(rng.random((n, 1)) < birds, foreign, own)
    return picked * rng.normal(1, 0.2, (n, 1))


def draw_texture(scene: Scene, px: int, rng: Generator) -> np.ndarray:
    """The scene's colours through noise: (px, px, 3) float32 BGR."""
    height = noise(rng, px, scene.stretch, octaves=7, gain=0.7)
    palette = np.array([bgr(c) for c in scene.palette])
    levels = np.array([np.interp(np.linspace(0, 1, 256), [0.2, 0.5, 0.8], p) for p in palette.T])
    return levels.T.astype(np.float32)[(height * 255).astype(np.uint8)]


def draw_stones(canvas: np.ndarray, colours: np.ndarray, rng: Generator) -> None:
    for colour in colours:
        centre, radius = rng.random(2), rng.uniform(0.015, 0.09)
        outline = circle((0, 0), 1, rng.uniform(0.5, 0.9))[::4] * rng.normal(1, 0.1, (10, 1))
        for size, shade in ((1, 0.55), (0.88, 0.85), (0.6, 1.05)):
            part = smooth_outline(outline, 4) * size - (1 - size) * np.array([0.3, 0.5])
            fill(canvas, place(part, centre, scale=radius), colour * shade)


def draw_branches(canvas: np.ndarray, colours: np.ndarray, rng: Generator) -> None:
    for colour in colours * 0.7:
        start, angle = rng.uniform(-0.1, 1.1, 2), rng.uniform(0, 2 * np.pi)
        width, bend = rng.uniform(0.015, 0.07), rng.normal(0, 0.15)
        draw_blades(canvas, colour, start, angle, 1.5, width, bend, tip=0.6)


def draw_distractors(canvas: np.ndarray, scene: Scene, rng: Generator) -> None:
    """One depth layer of branches, stones, leaves and grass, in place."""
    draw_branches(canvas, scene_colours(scene, scene.branches, rng), rng)
    draw_stones(canvas, scene_colours(scene, scene.stones, rng, 0.1), rng)
    n, size = scene.leaves, rng.uniform(0.04, 0.11)
    lengths = size * rng.uniform(0.6, 1.5, n)
    draw_blades(canvas, scene_colours(scene, n, rng, 0.15), rng.uniform(-0.05, 1.05, (n, 2)),
                rng.uniform(0, 2 * np.pi, n), lengths, lengths * rng.uniform(0.3, 0.6, n),
                rng.normal(0, 0.2, n), tip=0.9)
    n = scene.grass
    draw_blades(canvas, scene_colours(scene, n, rng), rng.uniform((-.1, .2), (1.1, 1.2), (n, 2)),
                rng.normal(-np.pi / 2, 0.3, n), rng.uniform(0.15, 0.5, n),
                rng.uniform(0.006, 0.02, n), rng.normal(0, 0.3, n), tip=0.6)


def draw_background(px: int, rng: Generator) -> np.ndarray:
    """A cluttered landscape of one or two scenes: (px, px, 3) uint8 BGR."""
    scene, other = (SCENES[k] for k in rng.choice(len(SCENES), 2, replace=False))
    border = noise(rng, px, octaves=4) + np.linspace(-2, 2, px, dtype=np.float32)[:, None]
    share = np.clip((border - rng.uniform(-1.5, 2.5)) * 4, 0, 1)[..., None]
    image = mix(draw_texture(scene, px, rng), draw_texture(other, px, rng), share).astype(np.uint8)
    for blur in (px / 90, px / 250, px / 700):
        draw_distractors(image, scene, rng)
        image = cv2.GaussianBlur(image, None, blur)
    grain = 0.65 + 0.7 * noise(rng, px, octaves=8, gain=0.85)
    return np.clip(image * grain[..., None], 0, 255).astype(np.uint8)
