"""The birds that make_mini.py draws, each of a species.

Coordinates, angles and canvases are those of painting.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from painting import bgr, circle, draw_blades, fill, mix, noise, place, smooth_outline, trim


class Kind(NamedTuple):
    """Head shape; lengths in head radii, crest = first and last angle (degrees), count, length."""

    crest: tuple[float, float, int, float]
    beak_length: float
    beak_depth: float
    beak_hook: float


KINDS = {
    'Finch': Kind((0, 0, 0, 0), 0.75, 0.85, 0.1),
    'Cardinal': Kind((-150, -105, 6, 1.9), 0.7, 0.75, 0.15),
    'Hoopoe': Kind((-185, -60, 9, 2.2), 2.3, 0.3, 0.45),
    'Warbler': Kind((0, 0, 0, 0), 0.7, 0.3, 0.0),
    'Toucanet': Kind((0, 0, 0, 0), 2.2, 0.85, 0.4),
    'Jay': Kind((-168, -135, 5, 2.1), 1.0, 0.45, 0.05),
    'Sunbird': Kind((0, 0, 0, 0), 1.9, 0.28, 0.6),
    'Kingfisher': Kind((-205, -120, 8, 1.5), 2.0, 0.5, 0.0),
}
HEAD_COLOURS = {
    'Crimson': bgr('#c8142f'), 'Azure': bgr('#2a86e8'), 'Golden': bgr('#f4bd14'),
    'Ebony': bgr('#23222a'), 'Emerald': bgr('#12935a'), 'Ivory': bgr('#f1ece0'),
    'Violet': bgr('#7d3cb5'), 'Copper': bgr('#b8622a'), 'Teal': bgr('#0fa3a3'),
    'Rose': bgr('#ec7fa6'), 'Indigo': bgr('#2b3a92'), 'Orange': bgr('#f0761c'),
}
PLUMAGE = [bgr(c) for c in ('#8a6a48', '#77787c', '#75794a', '#a98d62', '#56606e', '#6b4a36',
                            '#9a9a8c', '#5d6b45')]
# Which head feathers get the second colour; (N, 2) in head radii, x towards the beak, y down.
HEAD_PATTERNS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda p: p[:, 1] > 0.25,  # cap
    lambda p: np.abs(p[:, 1] + 0.15) < 0.3,  # mask through the eye
    lambda p: np.hypot(p[:, 0] - 0.1, p[:, 1] - 0.45) < 0.45,  # cheek
    lambda p: (p[:, 0] > 0.3) & (p[:, 1] > -0.5),  # face
    lambda p: np.abs(p[:, 1] + 0.6) < 0.2,  # eyebrow
]
BODY = np.array([(-.25, -.02), (-.12, -.085), (.03, -.115), (.14, -.1), (.195, -.02), (.15, .08),
                 (.03, .125), (-.12, .08), (-.24, .02)])
HEAD_RADIUS = 0.075
SPECIES_LIMIT = len(KINDS) * len(HEAD_COLOURS)


class Species(NamedTuple):
    name: str
    kind: Kind
    head: np.ndarray
    second: np.ndarray
    beak: np.ndarray
    tint: np.ndarray
    pattern: Callable[[np.ndarray], np.ndarray]


class Pose(NamedTuple):
    pitch: float
    plump: float
    neck: float
    head_tilt: float
    wing: float  # 0 folded .. 1 raised
    tail: float
    legs: float  # 0 = tucked


def make_species(label: int, rng: Generator) -> Species:
    """Pair colours and kinds so that the labels below SPECIES_LIMIT all have another head."""
    names, colours = list(HEAD_COLOURS), list(HEAD_COLOURS.values())
    kind = list(KINDS)[(label + label // 24) % len(KINDS)]
    beak = rng.choice([bgr('#e8a33a'), bgr('#3b3a3c'), bgr('#d9482b'), bgr('#b9b4a2')])
    return Species(f'{names[label % 12]}_{kind}', KINDS[kind], colours[label % 12],
                   colours[(label + 5) % 12], beak, colours[rng.integers(12)],
                   HEAD_PATTERNS[label % len(HEAD_PATTERNS)])


def random_pose(rng: Generator) -> Pose:
    flying = rng.random() < 0.25
    return Pose(np.radians(rng.uniform(-30, 5)), rng.uniform(0.85, 1.2), rng.uniform(0.0, 0.12),
                np.radians(rng.uniform(-20, 25)), rng.uniform(0.5, 1) if flying else 0,
                rng.uniform(0.14, 0.3), 0 if flying else rng.uniform(0.05, 0.17))


def draw_plumage(canvas: np.ndarray, outline: np.ndarray, colour_at: Callable, tailward: float,
                 step: float, rng: Generator) -> None:
    """Cover a part with overlapping feathers, tail end first; colour_at: (N, 2) -> (N, 3)."""
    fill(canvas, outline, colour_at(outline).mean(0))
    middle, reach = outline.mean(0), np.ptp(outline, axis=0).max() * 0.75
    u, v = np.meshgrid(np.arange(reach, -reach, -step), np.arange(-reach, reach, step),
                       indexing='ij')
    v = v + np.where(np.arange(len(u)) % 2, step / 2, 0)[:, None]
    roots = place(np.stack([u.ravel(), v.ravel()], 1), middle, tailward)
    roots += rng.normal(0, step / 7, roots.shape)
    part = np.zeros(canvas.shape[:2], np.uint8)
    fill(part, outline, np.array([255, 0, 0]))
    pixels = np.clip(np.round(roots * len(part)).astype(int), 0, len(part) - 1)
    near = cv2.dilate(part, np.ones((3, 3), np.uint8), iterations=int(step * len(part)))
    roots = roots[near[pixels[:, 1], pixels[:, 0]] > 0]
    colours = colour_at(roots) * rng.normal(1, 0.09, (len(roots), 1))
    layer = canvas.copy()
    draw_blades(layer, colours, roots, tailward + rng.normal(0, 0.2, len(roots)), 2.8 * step,
                1.2 * step, tip=1.1, rim_shade=0.8)
    cv2.copyTo(layer, (part > 127).astype(np.uint8), canvas)


def draw_wing(canvas: np.ndarray, shoulder: np.ndarray, pose: Pose, colour: np.ndarray,
              rng: Generator) -> None:
    """Flight feathers, then two rows of coverts over them."""
    arm_angle = pose.pitch + np.pi * mix(1.05, 1.5, pose.wing)
    wrist = place([(mix(0.1, 0.2, pose.wing), 0)], shoulder, arm_angle)[0]
    bar = rng.uniform(0.8, 1.4)
    for share, tone in ((1.0, rng.uniform(0.5, 0.85)), (0.58, 1.0), (0.33, bar)):
        t = np.linspace(1, 0, 13)
        roots = mix(shoulder, wrist, t[:, None])
        angles = pose.pitch + np.pi * mix(mix(0.86, 1.0, t), mix(0.95, 1.62, t), pose.wing)
        lengths = share * mix(mix(0.2, 0.26, t), mix(0.18, 0.33, t), pose.wing)
        tones = tone * rng.normal(1, 0.08, (13, 1))
        draw_blades(canvas, colour * tones, roots, angles, lengths,
                    mix(0.038, 0.055, pose.wing), tip=1.6)


def draw_tail(canvas: np.ndarray, root: np.ndarray, pose: Pose, colour: np.ndarray,
              rng: Generator) -> None:
    fan = np.linspace(-1, 1, 7) * rng.uniform(0.05, 0.3)
    fan = fan[np.argsort(-np.abs(fan))]
    draw_blades(canvas, colour * rng.normal(0.8, 0.1, (7, 1)), root, pose.pitch + np.pi + fan,
                pose.tail * rng.normal(1, 0.03, 7), 0.045, tip=1.9)


def draw_legs(canvas: np.ndarray, hip: np.ndarray, length: float, rng: Generator) -> None:
    colour = rng.choice([bgr('#5a5048'), bgr('#c9803a'), bgr('#a08a84'), bgr('#3a3836')])
    for side, shade in ((-0.03, 0.75), (0.02, 1.0)):
        top = hip + (side, -0.04)
        foot = top + (rng.uniform(-0.03, 0.04), length + 0.05)
        leg = np.array([top - (.012, 0), top + (.012, 0), foot + (.006, 0), foot - (.006, 0)])
        fill(canvas, leg, colour * shade)
        draw_blades(canvas, colour * shade, foot,
                    np.radians([5, 28, 55, 165]), [.055, .06, .045, .04], 0.017, tip=0.8)


def draw_head(canvas: np.ndarray, centre: np.ndarray, angle: float, species: Species,
              rng: Generator) -> None:
    """Crest, feathered skull, beak and eye: enough to tell the class."""
    def at(points: ArrayLike) -> np.ndarray:
        return place(points, centre, angle, HEAD_RADIUS)

    def colour_at(points: np.ndarray) -> np.ndarray:
        local = place(points - centre, (0, 0), -angle, 1 / HEAD_RADIUS)
        return np.where(species.pattern(local)[:, None], species.second, species.head)

    first, last, count, length = species.kind.crest
    if count:
        draw_blades(canvas, species.head * rng.normal(0.95, 0.1, (count, 1)), centre,
                    angle + np.radians(np.linspace(first, last, count)),
                    HEAD_RADIUS * length * rng.normal(1, 0.05, count), HEAD_RADIUS * 0.5, tip=1.3)
    draw_plumage(canvas, circle(centre, HEAD_RADIUS), colour_at, angle + np.pi * 0.95, 0.014, rng)
    draw_beak(canvas, at, species)
    fill(canvas, at(circle((0.3, -0.2), 0.23)), mix(species.second, species.beak, 0.6) * 0.8)
    fill(canvas, at(circle((0.3, -0.2), 0.19)), bgr('#17120f'))
    fill(canvas, at(circle((0.36, -0.27), 0.06)), bgr('#f5f5f0'))


def draw_beak(canvas: np.ndarray, at: Callable, species: Species) -> None:
    length, depth, hook = species.kind[1:]
    t = np.linspace(0, 1, 12)
    x, droop = 0.8 + t * (length + 0.15), hook * t**2
    gape = np.stack([x, 0.08 + droop], 1)
    for side, thickness, shade in ((1, 0.4, 0.7), (-1, 0.6, 1.0)):
        edge = gape + np.stack([0 * t, side * depth * thickness * (1 - t**1.6)], 1)
        fill(canvas, at(np.concatenate([gape, edge[::-1]])), species.beak * shade)


def shade_volume(canvas: np.ndarray, rng: Generator) -> None:
    """Light the flat drawing from above and add fine texture, in place."""
    size = canvas.shape[1::-1]
    small = cv2.resize(canvas[..., 3], (64, 64), interpolation=cv2.INTER_AREA) / np.float32(255)
    relief = cv2.Sobel(cv2.GaussianBlur(small, None, 2.5), cv2.CV_32F, 0, 1, scale=0.9)
    light = 1 + cv2.resize(relief, size, interpolation=cv2.INTER_CUBIC)
    grain = noise(rng, max(size), (0.08, 0.08), octaves=3, gain=0.8)
    light *= 0.85 + 0.3 * grain[:size[1], :size[0]]
    lit = canvas[..., :3] * np.clip(light, 0.4, 1.6)[..., None]
    canvas[..., :3] = np.minimum(lit, canvas[..., 3:])


def draw_bird(species: Species, px: int, rng: Generator) -> np.ndarray:
    """One bird in a random pose: (h, w, 4) uint8 premultiplied BGRA, trimmed."""
    canvas, pose, origin = np.zeros((px, px, 4), np.uint8), random_pose(rng), np.array([.5, .6])
    own = PLUMAGE[rng.integers(len(PLUMAGE))]
    back = mix(own, species.tint, rng.uniform(0.5, 0.9)) * rng.uniform(0.85, 1.15)
    belly = mix(back, mix(species.second, bgr('#efe6d2'), 0.4), rng.uniform(0.4, 0.7))
    wing = mix(own, species.second, rng.uniform(0.5, 0.9)) * rng.uniform(0.75, 1.05)
    spots = rng.uniform(0, 0.5) * (rng.random() < 0.6)

    def at(x: float, y: float) -> np.ndarray:
        return place([(x, y * pose.plump)], origin, pose.pitch)[0]

    def plumage_at(points: np.ndarray) -> np.ndarray:
        y = place(points - origin, (0, 0), -pose.pitch)[:, 1:]
        base = mix(back, belly, np.clip((y + 0.05) / 0.1, 0, 1))
        return base * (1 - spots * (rng.random((len(points), 1)) < 0.35))

    tailward, shoulder = pose.pitch + np.pi, at(0.1, -0.04)
    head = at(0.17, -0.12) + pose.neck * np.array([0.5, -1])
    if pose.wing:
        far = pose._replace(wing=pose.wing * 0.85)
        draw_wing(canvas, shoulder + (0.03, -0.02), far, wing * 0.65, rng)
    draw_tail(canvas, at(-0.18, 0), pose, wing, rng)
    if pose.legs:
        draw_legs(canvas, at(0, 0.11), pose.legs, rng)
    neck = np.concatenate([circle(head, HEAD_RADIUS * 0.9), circle(at(0.08, -0.01), 0.1)])
    draw_plumage(canvas, cv2.convexHull(neck.astype(np.float32))[:, 0].astype(float), plumage_at,
                 tailward - 0.5, 0.022, rng)
    body = place(BODY * (1, pose.plump), origin, pose.pitch)
    draw_plumage(canvas, smooth_outline(body), plumage_at, tailward - 0.15, 0.026, rng)
    draw_wing(canvas, shoulder, pose, wing, rng)
    draw_head(canvas, head, pose.head_tilt, species, rng)
    bird = trim(canvas)
    shade_volume(bird, rng)
    return bird
