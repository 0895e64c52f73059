"""Drawn pictures of birds in front of landscapes, with exact masks: the images of make_mini.py.

The head (colours, crest, beak) tells a bird's species; its plumage and pose are random.

Drawings use unit coordinates (x right, y down, both 0 to 1); angles are in radians. `canvas`: uint8
H x W, BGR or, for a bird, premultiplied BGRA; `rng`: a numpy Generator, which decides everything.
"""

from types import SimpleNamespace

import cv2
import numpy as np
from numpy.random import Generator


def colours(codes: str) -> np.ndarray:
    """'rrggbb rrggbb ...' -> (N, 3) float64 BGR in 0 to 255."""
    return np.array([*bytes.fromhex(codes)], float).reshape(-1, 3)[:, ::-1].copy()


# Length and depth of a beak, and how far its tip hangs; first and last angle (degrees),
# number and length of the feathers of its crest. Lengths are in radii of the head.
KINDS = np.genfromtxt("""
    Finch       0.75  0.85  0.1      0     0  0  0.0
    Cardinal    0.7   0.75  0.15  -150  -105  6  1.9
    Hoopoe      2.3   0.3   0.45  -185   -60  9  2.2
    Warbler     0.7   0.3   0.0      0     0  0  0.0
    Toucanet    2.2   0.85  0.4      0     0  0  0.0
    Jay         1.0   0.45  0.05  -168  -135  5  2.1
    Sunbird     1.9   0.28  0.6      0     0  0  0.0
    Kingfisher  2.0   0.5   0.0   -205  -120  8  1.5
""".splitlines(), dtype=None, encoding='utf-8')
HEAD_NAMES = ['Crimson', 'Azure', 'Golden', 'Ebony', 'Emerald', 'Ivory',
              'Violet', 'Copper', 'Teal', 'Rose', 'Indigo', 'Orange']
HEAD_COLOURS = colours('c8142f 2a86e8 f4bd14 23222a 12935a f1ece0 '
                       '7d3cb5 b8622a 0fa3a3 ec7fa6 2b3a92 f0761c')
PLUMAGE = colours('8a6a48 77787c 75794a a98d62 56606e 6b4a36')
BEAKS = colours('e8a33a 3b3a3c d9482b b9b4a2')
# Which head feathers get the second colour; in head radii, x towards the beak, y down.
HEAD_PATTERNS = [
    lambda x, y: y > 0.25,                            # cap
    lambda x, y: np.abs(y + 0.15) < 0.3,              # mask through the eye
    lambda x, y: np.hypot(x - 0.1, y - 0.45) < 0.45,  # cheek
    lambda x, y: (x > 0.3) & (y > -0.5),              # face
    lambda x, y: np.abs(y + 0.6) < 0.2,               # eyebrow
]
BODY = ((-.22, 0, .025), (-.1, 0, .085), (.03, .005, .115), (.1, -.01, .095))  # x, y, radius
HEAD_RADIUS = 0.075
SPECIES_LIMIT = len(KINDS) * len(HEAD_COLOURS)
# Colours, height and width of the features, numbers of leaves, blades of grass and branches.
SCENES = np.genfromtxt("""
    1c2b14 47692a 9db257  1.0   1.0  110    0  3  # foliage
    3f4a24 7f8a3c c3b86a  2.0   0.7   20  150  0  # meadow
    2f2118 6d4f37 b0916c  5.0   0.5   50    0  4  # bark
    8fb0cf b9cbd8 e6e8e4  0.7   2.0   35    0  6  # sky
    9a7b52 c3a877 e3d2a8  0.4   1.5   60   14  1  # sand
    1f3f4d 4a7480 a9c0bd  0.25  2.0   40   40  1  # water
    3b2414 84532a c98f4a  1.0   1.0  130   10  2  # leaf litter
    44454a 7d7b78 b5b0a6  1.0   1.0   90   12  1  # rocks
""".splitlines(), dtype=None, encoding='utf-8')


def make_species(label: int, rng: Generator) -> SimpleNamespace:
    """Colours and kinds are paired so that all labels below SPECIES_LIMIT have different heads."""
    kind, *shape = KINDS[(label + label // 24) % len(KINDS)].item()
    return SimpleNamespace(
        name=f'{HEAD_NAMES[label % 12]}_{kind}', shape=shape, head=HEAD_COLOURS[label % 12],
        second=HEAD_COLOURS[(label + 5) % 12], beak=rng.choice(BEAKS),
        tint=rng.choice(HEAD_COLOURS), pattern=HEAD_PATTERNS[label % len(HEAD_PATTERNS)])


def mix(a, b, share):
    return a + (b - a) * share


def paint(canvas, polygons, values):
    """Fill polygons (..., N, 2) in order with colours (..., 3), with antialiased edges."""
    pixels = np.round(polygons * (canvas.shape[0] * 16)).astype(np.int32)  # 4 fractional bits
    pixels = pixels.reshape(-1, *polygons.shape[-2:])
    for polygon, value in zip(pixels, np.clip(values, 0, 255).reshape(-1, 3).tolist(), strict=True):
        cv2.fillPoly(canvas, [polygon], (*value, 255), cv2.LINE_AA, shift=4)


def place(points, origin=0, angle=0, scale=1):
    """Points (..., 2) of a local frame -> the canvas."""
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]]) * scale + origin


def circle(centre, radius):
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], 1) * radius + centre


def draw_blades(canvas, values, roots, angles, lengths, widths, tip=1.6):
    """Paint N blades (feathers, leaves, grass), colours (N, 3), each with a shaded rim."""
    t = np.concatenate([np.linspace(0, 1, 10), np.linspace(1, 0, 10)])[:, None, None]
    side = np.repeat([1, -1], 10)[:, None, None] * np.sin(np.pi * t**tip)
    size = np.array([[1], [0.8]])
    along, across = lengths * t * (1 + size) / 2, widths / 2 * side * size
    c, s = np.cos(angles), np.sin(angles)
    outlines = np.stack([along * c - across * s, along * s + across * c]).T
    paint(canvas, outlines + np.reshape(roots, (-1, 1, 1, 2)), values[:, None] * [[0.7], [1.05]])


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
    paint(part, outline, (255, 0, 0))
    reach = np.ptp(outline, axis=0).max() * 0.75
    grid = np.mgrid[reach:-reach:-step, -reach:reach:step].reshape(2, -1).T
    roots = place(grid, outline.mean(0), tailward) + rng.normal(0, step / 4, grid.shape)
    values = colour_at(roots) * rng.normal(1, 0.09, (len(roots), 1))
    layer = canvas.copy()
    paint(layer, outline, colour_at(outline).mean(0))
    draw_blades(layer, values, roots, tailward + rng.normal(0, 0.2, len(roots)), 2.8 * step,
                1.2 * step, tip=1.1)
    cv2.copyTo(layer, np.uint8(part > 127), canvas)


def draw_wing(canvas, shoulder, pitch, lift, wing, rng):
    """Flight feathers, then two rows of coverts over them; lift: 0 folded to 1 raised."""
    wrist = place((mix(0.1, 0.2, lift), 0), shoulder, pitch + np.pi * mix(1.05, 1.5, lift))
    t = np.linspace(1, 0, 13)
    angles = pitch + np.pi * mix(mix(0.86, 1.0, t), mix(0.95, 1.62, t), lift)
    lengths = mix(mix(0.2, 0.26, t), mix(0.18, 0.33, t), lift)
    for share, tone in ((1.0, rng.uniform(0.5, 0.85)), (0.58, 1.0), (0.33, rng.uniform(0.8, 1.4))):
        draw_blades(canvas, wing * tone * rng.normal(1, 0.08, (13, 1)),
                    mix(shoulder, wrist, t[:, None]), angles, share * lengths,
                    mix(0.038, 0.055, lift))


def draw_head(canvas, centre, angle, species, rng):
    """Crest, feathered skull, beak and eye: enough to tell the species."""
    def colour_at(points):
        local = place(points - centre, angle=-angle, scale=1 / HEAD_RADIUS)
        return np.where(species.pattern(*local.T)[:, None], species.second, species.head)

    def on_head(points):
        return place(points, centre, angle, HEAD_RADIUS)

    length, depth, hang, first, last, count, crest = species.shape
    draw_blades(canvas, species.head * rng.normal(0.95, 0.1, (count, 1)), centre,
                angle + np.radians(np.linspace(first, last, count)), HEAD_RADIUS * crest,
                HEAD_RADIUS * 0.5, tip=1.3)
    draw_plumage(canvas, circle(centre, HEAD_RADIUS), colour_at, angle + np.pi * 0.95, 0.014, rng)
    t = np.linspace(0, 1, 12)
    gape = np.stack([0.8 + t * (length + 0.15), 0.08 + hang * t**2], 1)
    for side, shade in ((0.4, 0.7), (-0.6, 1.0)):  # of the beak
        edge = gape + np.outer(1 - t**1.6, (0, side * depth))
        paint(canvas, on_head(np.concatenate([gape, edge[::-1]])), species.beak * shade)
    paint(canvas, on_head(circle((0.3, -0.2), 0.21)), colours('17120f'))  # eye
    paint(canvas, on_head(circle((0.36, -0.27), 0.06)), colours('f5f5f0'))


def draw_bird(species: SimpleNamespace, px: int, rng: Generator) -> np.ndarray:
    """One bird in a random pose: (h, w, 4) uint8 premultiplied BGRA, trimmed."""
    canvas, origin = np.zeros((px, px, 4), np.uint8), np.array([.5, .6])
    pitch, tilt = np.radians(rng.uniform(-30, 5)), np.radians(rng.uniform(-20, 25))
    plump, neck = rng.uniform(0.85, 1.2), rng.uniform(0.0, 0.12)
    lift = rng.uniform(0.5, 1) * (rng.random() < 0.25)
    own = rng.choice(PLUMAGE)
    back = mix(own, species.tint, rng.uniform(0.5, 0.9)) * rng.uniform(0.85, 1.15)
    belly = mix(back, mix(species.second, colours('efe6d2'), 0.4), rng.uniform(0.4, 0.7))
    wing = mix(own, species.second, rng.uniform(0.5, 0.9)) * rng.uniform(0.75, 1.05)

    def at(x, y):
        return place((x, y * plump), origin, pitch)

    def plumage_at(points):
        y = place(points - origin, angle=-pitch)[:, 1:]
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
    *codes, high, wide, leaves, grass, branches = rng.choice(SCENES).item()
    palette = colours(' '.join(codes))
    levels = [np.interp(np.linspace(0, 1, 256), [0.2, 0.5, 0.8], values) for values in palette.T]
    image = np.uint8(levels).T[np.uint8(noise(rng, px, (high, wide)) * 255)]

    def shades(count: int, foreign: float = 0) -> np.ndarray:
        """The scene's own colours, but a share of the birds'."""
        own = mix(rng.choice(palette, count), rng.choice(palette, count), 0.4)
        birds = rng.choice([*HEAD_COLOURS, *PLUMAGE], count)
        picked = np.where(rng.random((count, 1)) < foreign, birds, own)
        return picked * rng.normal(1, 0.2, (count, 1))

    for blur in (px / 90, px / 250, px / 700):  # three layers
        draw_blades(image, shades(branches) * 0.7, rng.uniform(-0.1, 1.1, (branches, 2)),
                    rng.uniform(0, 2 * np.pi, branches), 1.5,
                    rng.uniform(0.015, 0.07, branches), tip=0.6)
        lengths = rng.uniform(0.04, 0.11) * rng.uniform(0.6, 1.5, leaves)
        draw_blades(image, shades(leaves, 0.15), rng.uniform(-0.05, 1.05, (leaves, 2)),
                    rng.uniform(0, 2 * np.pi, leaves), lengths,
                    lengths * rng.uniform(0.3, 0.6, leaves), tip=0.9)
        draw_blades(image, shades(grass), rng.uniform((-.1, .2), (1.1, 1.2), (grass, 2)),
                    rng.normal(-np.pi / 2, 0.3, grass), rng.uniform(0.15, 0.5, grass),
                    rng.uniform(0.006, 0.02, grass), tip=0.6)
        image = cv2.GaussianBlur(image, None, blur)
    grain = 0.65 + 0.7 * noise(rng, px, octaves=9)
    return np.clip(image * grain[..., None], 0, 255).astype(np.uint8)


def compose(bird: np.ndarray, background: np.ndarray, size: int, rng: Generator
            ) -> tuple[np.ndarray, np.ndarray]:
    """(image, mask): (h, w, 3) uint8 BGR, the longer side `size`, and (h, w) uint8, 0 and 255."""
    ratio = np.exp(rng.uniform(-1, 1) * np.log(4 / 3))
    frame = round(size * min(1, ratio)), round(size * min(1, 1 / ratio))  # width, height
    side = round(rng.uniform(0.45, 1) * min(background.shape[:2]) * min(frame) / size)
    x, y = rng.integers(background.shape[0] - side + 1, size=2)
    image = cv2.resize(background[y:y + side, x:x + side], frame, interpolation=cv2.INTER_AREA)
    angle = np.radians(rng.uniform(-30, 30))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]]) * (rng.choice([-1.0, 1.0]), 1)  # and flip
    hull = cv2.convexHull(cv2.findNonZero(np.uint8(bird[..., 3] > 127)))[:, 0]
    turned = hull @ turn.T
    extent = np.ptp(turned, axis=0) + 1
    scale = rng.uniform(0.45, 0.95) * (np.array(frame) / extent).min()
    corner = rng.uniform(0, 1, 2) * (frame - extent * scale) - turned.min(0) * scale
    bird = cv2.GaussianBlur(bird, None, max(0.4 / scale, 0.4))  # against aliasing
    layer = cv2.warpAffine(bird, np.column_stack([turn * scale, corner]), frame) / np.float32(255)
    alpha = layer[..., 3:]
    image = jitter(image / np.float32(255), rng) * (1 - alpha)
    image = image + np.minimum(jitter(layer[..., :3], rng), alpha)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, None, rng.uniform(0.2, 0.8))
    image = image + rng.uniform(0, 0.02) * rng.standard_normal(image.shape, np.float32)
    return np.clip(image * 255, 0, 255).astype(np.uint8), (alpha[..., 0] > 0.5) * np.uint8(255)


def jitter(image, rng):
    """Vary brightness, tint and saturation of a float32 BGR image in 0 to 1."""
    grey = image.mean(2, keepdims=True)
    gains = rng.uniform(0.7, 1.15) * rng.normal(1, 0.04, 3)
    return np.clip(mix(grey, image, rng.uniform(0.65, 1.35)) * gains, 0, 1).astype(np.float32)
