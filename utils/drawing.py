"""Visualizations: maps over images, boxes, contact sheets, curves.

All images are RGB, uint8, H x W x 3.
"""

import io
import textwrap
from dataclasses import dataclass

import cv2
import numpy as np

TITLE_HEIGHT, GAP, STRIPES = 26, 4, 8
NAME_WIDTH, NAME_LETTERS = 200, 24
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
    contours, _ = cv2.findContours(foreground.astype(np.uint8), cv2.RETR_TREE,
                                   cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(picture, contours, -1, OUTLINE_COLOUR, line_width(image))


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


@dataclass(frozen=True)
class Row:
    """A row of a contact sheet: pictures of any size, one for each title (None leaves the cell
    empty), and a caption below the last; `mark` colours the caption."""

    pictures: list[np.ndarray | None]
    caption: str = ''
    mark: tuple[int, int, int] | None = None


def contact_sheet(rows: list[Row], titles: list[str], side: int = 160) -> np.ndarray:
    """Rows of pictures, each fitted into side x side, below their titles. A row is as high as its
    highest picture."""
    header = np.full((TITLE_HEIGHT, len(titles) * (side + GAP), 3), 255, np.uint8)
    for column, title in enumerate(titles):
        write(header, title, column * (side + GAP), 0, side)
    captions = TITLE_HEIGHT * any(row.caption for row in rows)
    return np.vstack([header, *(_strip(row, header.shape[1], side, captions) for row in rows)])


def _strip(row: Row, width: int, side: int, captions: int) -> np.ndarray:
    """A row of a contact sheet, `width` pixels wide, with so many pixels for the caption."""
    height = max(fitted_size(picture, side)[0] for picture in row.pictures if picture is not None)
    strip = np.full((height + captions + GAP, width, 3), 255, np.uint8)
    for column, picture in enumerate(row.pictures):
        if picture is not None:
            left = column * (side + GAP)
            strip[:height, left:left + side] = fit(picture, side, height)
    left = (len(row.pictures) - 1) * (side + GAP)
    if row.mark and row.caption:
        strip[height:height + captions - 2, left:left + side] = row.mark
    write(strip, row.caption, left, height, side)
    return strip


def join_sheets(sheets: dict[str, np.ndarray]) -> np.ndarray:
    """Contact sheets of equal titles below each other, the titles once; at the left their names."""
    sheets = {'': next(iter(sheets.values()))[:TITLE_HEIGHT],
              **{name: sheet[TITLE_HEIGHT:] for name, sheet in sheets.items()}}
    strips = []
    for name, sheet in sheets.items():
        margin = np.full((len(sheet), NAME_WIDTH, 3), 255, np.uint8)
        for number, line in enumerate(textwrap.wrap(name, NAME_LETTERS)):
            write(margin, line, 0, number * TITLE_HEIGHT, NAME_WIDTH)
        strips.append(np.hstack([margin, sheet]))
    return np.vstack(strips)


def overlay(image: np.ndarray, foreground: np.ndarray, box: tuple | None, text: str) -> np.ndarray:
    """The image with the outline of `foreground` (bool H x W), the box, and the text above it where
    there is room."""
    picture = draw_boxes(outline(image, foreground), None, box)
    if text:
        width, scale = image.shape[1], max(0.4, image.shape[1] / 800)
        (length, height), _ = cv2.getTextSize(text, FONT, scale, 1)
        shrink = min(1, width / (length + 2 * height))
        length, height = round(shrink * (length + height)), round(shrink * 2 * height)
        left, top = (0, 0) if box is None else (int(value) for value in box[:2])
        left, top = max(0, min(left, width - length)), max(0, top - height)
        cv2.rectangle(picture, (left, top), (left + length, top + height), PRED_COLOUR, cv2.FILLED)
        cv2.putText(picture, text, (left + height // 4, top + 3 * height // 4), FONT,
                    shrink * scale, (255, 255, 255), max(1, round(2 * scale)), cv2.LINE_AA)
    return picture


def fitted_size(picture: np.ndarray, side: int) -> tuple[int, int]:
    """The (height, width) of the picture made to fit into side x side."""
    scale = side / max(picture.shape[:2])
    return tuple(max(1, round(scale * length)) for length in picture.shape[:2])


def fit(picture: np.ndarray, side: int, cell_height: int | None = None) -> np.ndarray:
    """The whole picture in cell_height (by default `side`) x side, its aspect ratio kept, on
    white."""
    height, width = fitted_size(picture, side)
    method = cv2.INTER_AREA if side < max(picture.shape[:2]) else cv2.INTER_LINEAR
    cell = np.full((cell_height or side, side, 3), 255, np.uint8)
    top, left = (len(cell) - height) // 2, (side - width) // 2
    cell[top:top + height, left:left + width] = cv2.resize(picture, (width, height),
                                                           interpolation=method)
    return cell


def write(picture: np.ndarray, text: str, left: int, top: int, width: int) -> None:
    """Write a line of text, made small enough for `width` pixels."""
    (length, _), _ = cv2.getTextSize(text, FONT, 0.5, 1)
    scale = 0.5 * min(1, (width - 4) / max(length, 1))
    cv2.putText(picture, text, (left + 2, top + 17), FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def sweep_curves(sweeps: dict[str, dict]) -> bytes:
    """GT-known over the threshold by both counts, a pair of curves for each of the named sweeps
    (`LocalizationMetrics.sweep`), as the content of a PNG file."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for number, (name, sweep) in enumerate(sweeps.items()):
        for count, style in (('strict', '-'), ('paper', ':')):
            axes.plot(sweep['thresholds'], sweep[count], style, color=f'C{number}',
                      label=f'{name}, {count} count')
    axes.set(xlabel='threshold', ylabel='GT-known', xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    return png_of(figure)


def png_of(figure) -> bytes:
    """A matplotlib figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=120)
    return content.getvalue()
