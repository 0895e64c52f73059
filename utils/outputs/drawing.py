"""Pictures of what the chain does: maps over images, boxes, contact sheets.

All images are RGB, uint8, H x W x 3.
"""

import io

import cv2
import numpy as np
from matplotlib.figure import Figure

TITLE_HEIGHT = 22
GAP = 4
TRUE_COLOUR, FOUND_COLOUR = (40, 200, 60), (250, 60, 40)


def heatmap(image: np.ndarray, score_map: np.ndarray) -> np.ndarray:
    """A map in [0, 1], H x W, as colours over the image."""
    colours = cv2.applyColorMap((255 * score_map).astype(np.uint8), cv2.COLORMAP_JET)
    return cv2.addWeighted(image, 0.45, cv2.cvtColor(colours, cv2.COLOR_BGR2RGB), 0.55, 0)


def target_image(foreground: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A segmentation target: foreground white, background black, what the loss ignores grey."""
    grey = np.where(foreground, 255, np.where(weight, 0, 110)).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def cut_out(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """The image where `foreground` (bool H x W) is, darkened elsewhere."""
    return np.where(foreground[..., None], image, image // 5)


def draw_boxes(image: np.ndarray, true: np.ndarray, found: tuple | None) -> np.ndarray:
    """True boxes (K, 4) in green and the found one in red."""
    image = image.copy()
    for box, colour in [*((box, TRUE_COLOUR) for box in true), (found, FOUND_COLOUR)]:
        if box is not None and not np.isnan(box).any():
            x0, y0, x1, y1 = (round(float(value)) for value in box)
            cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), colour, 2)
    return image


def contact_sheet(rows: list[list[np.ndarray]], titles: list[str], side: int,
                  blocks: int = 1) -> np.ndarray:
    """Rows of images, each scaled to side x side, below their titles; `blocks` blocks of rows
    stand side by side."""
    per_block = -(-len(rows) // blocks)
    width = len(titles) * (side + GAP) + 3 * GAP
    sheet = np.full((TITLE_HEIGHT + per_block * (side + GAP), blocks * width - 4 * GAP, 3), 255,
                    np.uint8)
    for block in range(blocks):
        for column, title in enumerate(titles):
            cv2.putText(sheet, title, (block * width + column * (side + GAP) + 2, 15),
                        cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    for number, row in enumerate(rows):
        block, line = divmod(number, per_block)
        for column, image in enumerate(row):
            top, left = TITLE_HEIGHT + line * (side + GAP), block * width + column * (side + GAP)
            sheet[top:top + side, left:left + side] = cv2.resize(
                image, (side, side), interpolation=cv2.INTER_AREA)
    return sheet


def sweep_curves(sweeps: dict[str, dict]) -> bytes:
    """GT-known over the threshold by both counts, a pair of curves for each of the named sweeps
    (`LocalizationCount.sweep`), as a PNG file's content."""
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for number, (name, sweep) in enumerate(sweeps.items()):
        for count, style in (('strict', '-'), ('paper', ':')):
            axes.plot(sweep['thresholds'], sweep[count], style, color=f'C{number}',
                      label=f"{name}, {count} count")
    axes.set(xlabel='threshold', ylabel='GT-known', xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=120)
    return content.getvalue()
