"""Drawn pictures of birds in front of landscapes, with exact masks: the images of make_mini.py.

The head (colours, crest, beak) tells a bird's species; its plumage and pose are random.

Drawings use unit coordinates (x right, y down, both 0 to 1); angles are in radians. `canvas`: uint8
H x W, BGR or, for a bird, premultiplied BGRA; `rng`: a numpy Generator, which decides everything.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator


def colour(code: str) -> np.ndarray:
    """'rrggbb' -> (3,) float64 BGR in 0 to 255."""
    return np.array([int(code[i:i + 2], 16) for i in (4, 2, 0)], float)


NO_CREST = (0, 0, 0, 0)
# Length and depth of a beak, and how far its tip hangs; first and last angle (degrees),
# number and length of the feathers of its crest. Lengths are in radii of the head.
KINDS = {
    'Finch': (0.75, 0.85, 0.1, NO_CREST), 'Cardinal': (0.7, 0.75, 0.15, (-150, -105, 6, 1.9)),
    'Hoopoe': (2.3, 0.3, 0.45, (-185, -60, 9, 2.2)), 'Warbler': (0.7, 0.3, 0.0, NO_CREST),
    'Toucanet': (2.2, 0.85, 0.4, NO_CREST), 'Jay': (1.0, 0.45, 0.05, (-168, -135, 5, 2.1)),
    'Sunbird': (1.9, 0.28, 0.6, NO_CREST), 'Kingfisher': (2.0, 0.5, 0.0, (-205, -120, 8, 1.5)),
}
HEAD_COLOURS = {name: colour(code) for name, code in {
    'Crimson': 'c8142f', 'Azure': '2a86e8', 'Golden': 'f4bd14', 'Ebony': '23222a',
    'Emerald': '12935a', 'Ivory': 'f1ece0', 'Violet': '7d3cb5', 'Copper': 'b8622a',
    'Teal': '0fa3a3', 'Rose': 'ec7fa6', 'Indigo': '2b3a92', 'Orange': 'f0761c'}.items()}
PLUMAGE = [colour(code) for code in ('8a6a48', '77787c', '75794a', 'a98d62', '56606e', '6b4a36')]
BEAKS = [colour(code) for code in ('e8a33a', '3b3a3c', 'd9482b', 'b9b4a2')]
# Which head feathers get the second colour; (N, 2) in head radii, x towards the beak, y down.
HEAD_PATTERNS = [
    lambda p: p[:, 1] > 0.25,                                # cap
    lambda p: np.abs(p[:, 1] + 0.15) < 0.3,                  # mask through the eye
    lambda p: np.hypot(p[:, 0] - 0.1, p[:, 1] - 0.45) < 0.45,  # cheek
    lambda p: (p[:, 0] > 0.3) & (p[:, 1] > -0.5),            # face
    lambda p: np.abs(p[:, 1] + 0.6) < 0.2,                   # eyebrow
]
BODY = ((-.22, 0, .025), (-.1, 0, .085), (.03, .005, .115), (.1, -.01, .095))  # x, y, radius
HEAD_RADIUS = 0.075
SPECIES_LIMIT = len(KINDS) * len(HEAD_COLOURS)
# Colours, height and width of the features, numbers of leaves, blades of grass and branches.
SCENES = [
    ('1c2b14 47692a 9db257', (1, 1), 110, 0, 3),      # foliage
    ('3f4a24 7f8a3c c3b86a', (2, 0.7), 20, 150, 0),   # meadow
    ('2f2118 6d4f37 b0916c', (5, 0.5), 50, 0, 4),      # bark
    ('8fb0cf b9cbd8 e6e8e4', (0.7, 2), 35, 0, 6),     # sky
    ('9a7b52 c3a877 e3d2a8', (0.4, 1.5), 60, 14, 1),  # sand
    ('1f3f4d 4a7480 a9c0bd', (0.25, 2), 40, 40, 1),   # water
    ('3b2414 84532a c98f4a', (1, 1), 130, 10, 2),     # leaf litter
    ('44454a 7d7b78 b5b0a6', (1, 1), 90, 12, 1),       # rocks
]


class Species(NamedTuple):
    name: str
    kind: str
    head: np.ndarray
    second: np.ndarray
    beak: np.ndarray
    tint: np.ndarray
    pattern: Callable[[np.ndarray], np.ndarray]


def make_species(label: int, rng: Generator) -> Species:
    """Colours and kinds are paired so that all labels below SPECIES_LIMIT have different heads."""
    names, colours = list(HEAD_COLOURS), list(HEAD_COLOURS.values())
    kind = list(KINDS)[(label + label // 24) % len(KINDS)]
    return Species(f'{names[label % 12]}_{kind}', kind, colours[label % 12],
                   colours[(label + 5) % 12], rng.choice(BEAKS), colours[rng.integers(12)],
                   HEAD_PATTERNS[label % len(HEAD_PATTERNS)])


def mix(a, b, share):
    return a + (b - a) * share


def paint(canvas, polygons, colours):
    """Fill polygons (K, N, 2) in order with colours (K, 3), with antialiased edges."""
    pixels = np.round(polygons * (canvas.shape[0] * 16)).astype(np.int32)  # 4 fractional bits
    for polygon, value in zip(pixels, np.clip(colours, 0, 255).tolist(), strict=True):
        cv2.fillPoly(canvas, [polygon], (*value, 255), cv2.LINE_AA, shift=4)


def place(points, origin, angle=0, scale=1):
    """Points (N, 2) of a local frame -> the canvas."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[c, s], [-s, c]]) * scale + np.asarray(origin)


def circle(centre, radius):
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return place(np.stack([np.cos(t), np.sin(t)], 1), centre, scale=radius)


def draw_blades(canvas, colours, roots, angles, lengths, widths, tip=1.6):
    """Paint N blades (feathers, leaves, grass), colours (N, 3), each with a shaded rim."""
    roots = np.atleast_2d(roots)
    angles, lengths, widths = (np.broadcast_to(values, len(angles))[:, None]
                               for values in (angles, lengths, widths))
    t = np.concatenate([np.linspace(0, 1, 10), np.linspace(1, 0, 10)])
    side = np.repeat([1, -1], 10) * np.sin(np.pi * t**tip)
    c, s = np.cos(angles), np.sin(angles)
    outlines = []
    for size in (1, 0.8):
        along, across = lengths * t * (1 + size) / 2, widths / 2 * side * size
        outlines.append(np.stack([along * c - across * s, along * s + across * c], 2))
    outlines = np.stack(outlines, 1) + roots[:, None, None]
    colours = np.broadcast_to(colours, (len(outlines), 3))[:, None] * [[0.7], [1.05]]
    paint(canvas, outlines.reshape(-1, 20, 2), colours.reshape(-1, 3))


def noise(rng, px, stretch=(1, 1), octaves=7):
    """Value noise (px, px) float32 in 0 to 1; stretch = height and width of the features."""
    total = np.zeros((px, px), np.float32)
    for octave in range(octaves):
        cells = [max(2, min(px, round(3 * 2**octave / s))) for s in stretch]
        grid = rng.random(cells, np.float32) * np.float32(0.7**octave)
        total += cv2.resize(grid, (px, px), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(total, None, 0, 1, cv2.NORM_MINMAX)


def draw_plumage(canvas, outline, colour_at, tailward, step, rng):
    """Cover a part with overlapping feathers, tail end first; colour_at: (N, 2) -> (N, 3)."""
    part = np.zeros(canvas.shape[:2], np.uint8)
    paint(part, outline[None], np.full((1, 3), 255))
    reach = np.ptp(outline, axis=0).max() * 0.75
    grid = np.meshgrid(np.arange(reach, -reach, -step), np.arange(-reach, reach, step),
                       indexing='ij')
    roots = place(np.stack(grid, 2).reshape(-1, 2), outline.mean(0), tailward)
    roots += rng.normal(0, step / 4, roots.shape)
    colours = colour_at(roots) * rng.normal(1, 0.09, (len(roots), 1))
    layer = canvas.copy()
    paint(layer, outline[None], colour_at(outline).mean(0)[None])
    draw_blades(layer, colours, roots, tailward + rng.normal(0, 0.2, len(roots)), 2.8 * step,
                1.2 * step, tip=1.1)
    cv2.copyTo(layer, (part > 127).astype(np.uint8), canvas)


def draw_wing(canvas, shoulder, pitch, lift, wing, rng):
    """Flight feathers, then two rows of coverts over them; lift: 0 folded to 1 raised."""
    wrist = place([(mix(0.1, 0.2, lift), 0)], shoulder, pitch + np.pi * mix(1.05, 1.5, lift))[0]
    for share, tone in ((1.0, rng.uniform(0.5, 0.85)), (0.58, 1.0), (0.33, rng.uniform(0.8, 1.4))):
        t = np.linspace(1, 0, 13)
        angles = pitch + np.pi * mix(mix(0.86, 1.0, t), mix(0.95, 1.62, t), lift)
        lengths = share * mix(mix(0.2, 0.26, t), mix(0.18, 0.33, t), lift)
        draw_blades(canvas, wing * tone * rng.normal(1, 0.08, (13, 1)),
                    mix(shoulder, wrist, t[:, None]), angles, lengths, mix(0.038, 0.055, lift))


def draw_head(canvas, centre, angle, species, rng):
    """Crest, feathered skull, beak and eye: enough to tell the species."""
    def colour_at(points):
        local = place(points - centre, (0, 0), -angle, 1 / HEAD_RADIUS)
        return np.where(species.pattern(local)[:, None], species.second, species.head)

    length, depth, hang, (first, last, count, crest) = KINDS[species.kind]
    draw_blades(canvas, species.head * rng.normal(0.95, 0.1, (count, 1)), centre,
                angle + np.radians(np.linspace(first, last, count)), HEAD_RADIUS * crest,
                HEAD_RADIUS * 0.5, tip=1.3)
    draw_plumage(canvas, circle(centre, HEAD_RADIUS), colour_at, angle + np.pi * 0.95, 0.014, rng)
    t = np.linspace(0, 1, 12)
    gape = np.stack([0.8 + t * (length + 0.15), 0.08 + hang * t**2], 1)
    for side, shade in ((0.4, 0.7), (-0.6, 1.0)):  # of the beak
        edge = gape + np.stack([0 * t, side * depth * (1 - t**1.6)], 1)
        outline = place(np.concatenate([gape, edge[::-1]]), centre, angle, HEAD_RADIUS)
        paint(canvas, outline[None], species.beak[None] * shade)
    for position, radius, value in (((0.3, -0.2), 0.21, '17120f'), ((0.36, -0.27), 0.06, 'f5f5f0')):
        eye = place(circle(position, radius), centre, angle, HEAD_RADIUS)
        paint(canvas, eye[None], colour(value)[None])


def draw_bird(species: Species, px: int, rng: Generator) -> np.ndarray:
    """One bird in a random pose: (h, w, 4) uint8 premultiplied BGRA, trimmed."""
    canvas, origin = np.zeros((px, px, 4), np.uint8), np.array([.5, .6])
    pitch, tilt = np.radians(rng.uniform(-30, 5)), np.radians(rng.uniform(-20, 25))
    plump, neck = rng.uniform(0.85, 1.2), rng.uniform(0.0, 0.12)
    lift = rng.uniform(0.5, 1) * (rng.random() < 0.25)
    own = PLUMAGE[rng.integers(len(PLUMAGE))]
    back = mix(own, species.tint, rng.uniform(0.5, 0.9)) * rng.uniform(0.85, 1.15)
    belly = mix(back, mix(species.second, colour('efe6d2'), 0.4), rng.uniform(0.4, 0.7))
    wing = mix(own, species.second, rng.uniform(0.5, 0.9)) * rng.uniform(0.75, 1.05)

    def at(x, y):
        return place([(x, y * plump)], origin, pitch)[0]

    def plumage_at(points):
        y = place(points - origin, (0, 0), -pitch)[:, 1:]
        return mix(back, belly, np.clip((y + 0.05) / 0.1, 0, 1))

    tailward, shoulder = pitch + np.pi, at(0.1, -0.04)
    head = at(0.17, -0.12) + neck * np.array([0.5, -1])
    if lift:
        draw_wing(canvas, shoulder + (0.03, -0.02), pitch, lift * 0.85, wing * 0.65, rng)
    fan = np.linspace(-1, 1, 7) * rng.uniform(0.05, 0.3)
    draw_blades(canvas, wing * rng.normal(0.8, 0.1, (7, 1)), at(-0.18, 0), tailward + fan,
                rng.uniform(0.14, 0.3), 0.045, tip=1.9)
    body = [circle(at(x, y), radius * plump) for x, y, radius in BODY]
    throat = [circle(head, HEAD_RADIUS * 0.9), body[-1]]
    for parts, turn, step in ((throat, -0.5, 0.022), (body, -0.15, 0.026)):
        hull = cv2.convexHull(np.concatenate(parts).astype(np.float32))[:, 0].astype(float)
        draw_plumage(canvas, hull, plumage_at, tailward + turn, step, rng)
    draw_wing(canvas, shoulder, pitch, lift, wing, rng)
    draw_head(canvas, head, tilt, species, rng)
    x, y, width, height = cv2.boundingRect(canvas[..., 3])
    bird = canvas[y:y + height, x:x + width]
    alpha = bird[..., 3:]
    thickness = cv2.GaussianBlur(alpha / np.float32(255), None, px / 20)[..., None]
    relief = np.gradient(thickness, axis=0) * (px / 6)  # light from above
    shaded = bird[..., :3] * np.clip(1 + relief, 0.5, 1.5) * rng.normal(1, 0.06, alpha.shape)
    bird[..., :3] = np.clip(shaded, 0, alpha)
    return bird


def draw_background(px: int, rng: Generator) -> np.ndarray:
    """A cluttered landscape: (px, px, 3) uint8 BGR."""
    codes, stretch, leaves, grass, branches = SCENES[rng.integers(len(SCENES))]
    palette = np.array([colour(code) for code in codes.split()])
    levels = [np.interp(np.linspace(0, 1, 256), [0.2, 0.5, 0.8], values) for values in palette.T]
    image = np.array(levels).T[(noise(rng, px, stretch) * 255).astype(np.uint8)].astype(np.uint8)

    def colours(count: int, foreign: float = 0) -> np.ndarray:
        """The scene's own, but a share of the birds' colours."""
        own = mix(palette[rng.integers(3, size=count)], palette[rng.integers(3, size=count)], 0.4)
        birds = rng.choice([*HEAD_COLOURS.values(), *PLUMAGE], count)
        picked = np.where(rng.random((count, 1)) < foreign, birds, own)
        return picked * rng.normal(1, 0.2, (count, 1))

    for blur in (px / 90, px / 250, px / 700):  # three layers
        draw_blades(image, colours(branches) * 0.7, rng.uniform(-0.1, 1.1, (branches, 2)),
                    rng.uniform(0, 2 * np.pi, branches), 1.5,
                    rng.uniform(0.015, 0.07, branches), tip=0.6)
        lengths = rng.uniform(0.04, 0.11) * rng.uniform(0.6, 1.5, leaves)
        draw_blades(image, colours(leaves, 0.15), rng.uniform(-0.05, 1.05, (leaves, 2)),
                    rng.uniform(0, 2 * np.pi, leaves), lengths,
                    lengths * rng.uniform(0.3, 0.6, leaves), tip=0.9)
        draw_blades(image, colours(grass), rng.uniform((-.1, .2), (1.1, 1.2), (grass, 2)),
                    rng.normal(-np.pi / 2, 0.3, grass), rng.uniform(0.15, 0.5, grass),
                    rng.uniform(0.006, 0.02, grass), tip=0.6)
        image = cv2.GaussianBlur(image, None, blur)
    grain = 0.65 + 0.7 * noise(rng, px, octaves=9)
    return np.clip(image * grain[..., None], 0, 255).astype(np.uint8)


def compose(bird: np.ndarray, background: np.ndarray, size: int, rng: Generator
            ) -> tuple[np.ndarray, np.ndarray]:
    """(image, mask): (h, w, 3) uint8 BGR, the longer side `size`, and (h, w) uint8, 0 and 255."""
    ratio = np.exp(rng.uniform(-1, 1) * np.log(4 / 3))
    width, height = round(size * min(1, ratio)), round(size * min(1, 1 / ratio))
    side = round(rng.uniform(0.45, 1) * min(background.shape[:2]) * min(width, height) / size)
    x, y = rng.integers(background.shape[0] - side + 1, size=2)
    image = cv2.resize(background[y:y + side, x:x + side], (width, height),
                       interpolation=cv2.INTER_AREA)
    placement = random_placement(bird, (width, height), rng)
    scale = np.sqrt(abs(np.linalg.det(placement[:, :2])))
    bird = cv2.GaussianBlur(bird, None, max(0.4 / scale, 0.4))  # against aliasing
    layer = cv2.warpAffine(bird, placement, (width, height)) / np.float32(255)
    alpha = layer[..., 3:]
    image = jitter(image / np.float32(255), rng) * (1 - alpha)
    image = image + np.minimum(jitter(layer[..., :3], rng), alpha)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, None, rng.uniform(0.2, 0.8))
    image = image + rng.uniform(0, 0.02) * rng.standard_normal(image.shape, np.float32)
    return np.clip(image * 255, 0, 255).astype(np.uint8), (alpha[..., 0] > 0.5) * np.uint8(255)


def random_placement(bird, frame, rng):
    """(2, 3) affine map that flips, turns, scales and moves the bird, all of it in the frame."""
    opaque = (bird[..., 3] > 127).astype(np.uint8)
    parts, _ = cv2.findContours(opaque, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    angle = np.radians(rng.uniform(-30, 30))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]]) * (rng.choice([-1.0, 1.0]), 1)
    corners = np.concatenate(parts)[:, 0] @ turn.T
    extent = np.ptp(corners, axis=0) + 1
    scale = rng.uniform(0.45, 0.95) * (np.array(frame) / extent).min()
    corner = rng.uniform(0, 1, 2) * (frame - extent * scale) - corners.min(0) * scale
    return np.column_stack([turn * scale, corner])


def jitter(image, rng):
    """Vary brightness, tint and saturation of a float32 BGR image in 0 to 1."""
    grey = image.mean(2, keepdims=True)
    gains = rng.uniform(0.7, 1.15) * rng.normal(1, 0.04, 3)
    return np.clip(mix(grey, image, rng.uniform(0.65, 1.35)) * gains, 0, 1).astype(np.float32)
