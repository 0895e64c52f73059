"""Visualizations: maps over images, boxes, contact sheets, curves.

All images are RGB, uint8, H x W x 3.
"""

import io
from typing import Any, NamedTuple

import cv2
import numpy as np

from utils.boxes import contours_of

TITLE_HEIGHT, GAP, STRIPES = 26, 4, 8
GT_COLOUR, PRED_COLOUR = (40, 200, 60), (250, 60, 40)
OUTLINE_COLOUR = (255, 220, 0)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def heatmap(image: np.ndarray, score_map: np.ndarray) -> np.ndarray:
    """A map in [0, 1], H x W, in perceptually uniform colours (inferno) over the grey image."""
    levels = (255 * np.clip(score_map, 0, 1)).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(grey, 0.3, colours, 0.7, 0)


def target_image(foreground: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A segmentation target (bool H x W each): foreground white, background black, and what the
    loss ignores hatched."""
    rows, columns = np.indices(foreground.shape)
    hatching = ((rows + columns) % STRIPES < STRIPES // 4) * np.uint8(170) + np.uint8(40)
    grey = np.where(foreground, np.uint8(255), np.where(valid, np.uint8(0), hatching))
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def outline(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """The outline of `foreground` (bool H x W) over the image, which is darkened outside."""
    picture = np.where(foreground[..., None], image, image // 3)
    return cv2.drawContours(picture, contours_of(foreground), -1, OUTLINE_COLOUR,
                            line_width(image))


def draw_boxes(image: np.ndarray, gt_boxes: np.ndarray | None, box: tuple | None) -> np.ndarray:
    """Ground-truth boxes (K, 4) in green and the predicted `box` in red."""
    picture = image.copy()
    truth = [(corners, GT_COLOUR) for corners in ([] if gt_boxes is None else gt_boxes)]
    for corners, colour in [*truth, (box, PRED_COLOUR)]:
        if corners is not None and not np.isnan(corners).any():
            x0, y0, x1, y1 = (round(float(value)) for value in corners)
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, line_width(image))
    return picture


def line_width(image: np.ndarray) -> int:
    return max(1, round(max(image.shape[:2]) / 110))


def overlay(image: np.ndarray, foreground: np.ndarray, box: tuple | None, text: str) -> np.ndarray:
    """The image with the outline of `foreground` (bool H x W), the box, and the text on a bar at
    the top."""
    picture = draw_boxes(outline(image, foreground), None, box)
    if text:
        height = max(TITLE_HEIGHT, image.shape[1] // 30)
        picture[:height] = PRED_COLOUR
        write(picture[:height], text, (255, 255, 255))
    return picture


class Row(NamedTuple):
    """A row of a contact sheet: pictures of any size, one for each title (None leaves the cell
    empty), and a caption below the last; `mark` colours the caption."""

    pictures: list[np.ndarray | None]
    caption: str = ''
    mark: tuple[int, int, int] = (255, 255, 255)


def contact_sheet(rows: list[Row], titles: list[str], side: int = 160) -> np.ndarray:
    """Rows of pictures, each fitted into side x side, below their titles. A row is as high as its
    highest picture."""
    step = side + GAP
    sheet = [blank(TITLE_HEIGHT, len(titles) * step)]
    for column, title in enumerate(titles):
        write(sheet[0][:, column * step:column * step + side], title)
    for row in rows:
        fitted = [None if picture is None else fit(picture, side) for picture in row.pictures]
        height = max(len(picture) for picture in fitted if picture is not None)
        strip = blank(height + GAP + TITLE_HEIGHT * bool(row.caption), sheet[0].shape[1])
        for column, picture in enumerate(fitted):
            if picture is not None:
                top = (height - len(picture)) // 2
                left = column * step + (side - picture.shape[1]) // 2
                strip[top:top + len(picture), left:left + picture.shape[1]] = picture
        if row.caption:
            below = strip[height:height + TITLE_HEIGHT - 2, column * step:column * step + side]
            below[:] = row.mark
            write(below, row.caption)
        sheet.append(strip)
    return np.vstack(sheet)


def blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def fit(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture made to fit into side x side, its aspect ratio kept."""
    scale = side / max(picture.shape[:2])
    size = [max(1, round(scale * length)) for length in picture.shape[1::-1]]
    return cv2.resize(picture, size,
                      interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def write(picture: np.ndarray, text: str, colour: tuple[int, int, int] = (0, 0, 0)) -> None:
    """Write a line of text into a picture, a view of a larger one, as large as it fits."""
    height, width = picture.shape[:2]
    (length, _), _ = cv2.getTextSize(text, FONT, 1, 1)
    scale = min(height / 50, (width - 4) / max(length, 1))
    line = np.ascontiguousarray(picture)
    cv2.putText(line, text, (2, 2 * height // 3), FONT, scale, colour, 1, cv2.LINE_AA)
    picture[:] = line


def sweep_curves(sweeps: dict[str, dict]) -> bytes:
    """GT-known over the threshold by both counts, a pair of curves for each of the named sweeps
    (`utils.evaluation.sweep_of`), as the content of a PNG file."""
    figure, axes = threshold_axes('GT-known')
    for number, (name, sweep) in enumerate(sweeps.items()):
        for count, style in (('strict', '-'), ('paper', ':')):
            axes.plot(sweep['thresholds'], sweep[count], style, color=f'C{number}',
                      label=f'{name}, {count} count')
    axes.legend()
    return png_of(figure)


def threshold_axes(label: str) -> tuple[Any, Any]:
    """A matplotlib figure, and its axes for a share over thresholds."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    axes.set(xlabel='threshold', ylabel=label, xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    return figure, axes


def png_of(figure: Any) -> bytes:
    """A matplotlib figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=120)
    return content.getvalue()
