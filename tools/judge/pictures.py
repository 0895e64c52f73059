"""The pictures of an evaluation: curves over the threshold, and the worst images."""

from pathlib import Path

import numpy as np

from tools.judge.analysis import Method
from tools.judge.ground_truth import GroundTruth
from tools.judge.measuring import score_map_of
from utils.data.images import read_image, resize
from utils.localization.boxes import largest_box
from utils.localization.metrics import BENCHMARK_SIDE, LEVELS, level_of, normalise_map
from utils.outputs.drawing import Row, contact_sheet, draw_boxes, heatmap, outline, png_of

TITLES = ['truth and box', 'score map', 'above the threshold']
SIDE = 220  # pixels of a picture in the sheet


def worst_sheet(folder: Path, method: Method, truths: list[GroundTruth], images: Path, count: int
                ) -> np.ndarray:
    """The `count` images of lowest IoU at the threshold in use, RGB: their true boxes and the one
    found, their maps, and what of these exceeds the threshold."""
    boxes = method.boxes
    worst = np.lexsort((boxes.best_iou, boxes.iou))[:count]
    return contact_sheet([
        _row(folder, truths[index], images, boxes.threshold,
             f'{truths[index].name}: IoU {boxes.iou[index]:.2f}, best {boxes.best_iou[index]:.2f}')
        for index in worst], TITLES, SIDE)


def _row(folder: Path, truth: GroundTruth, images: Path, threshold: float, caption: str) -> Row:
    image = read_image(images / truth.name)
    height, width = image.shape[:2]
    score_map = normalise_map(score_map_of(folder, truth.name))
    box = largest_box((score_map * LEVELS).astype(np.uint8), level_of(threshold))
    if box is not None:
        box = np.array(box) * ([width / BENCHMARK_SIDE, height / BENCHMARK_SIDE] * 2)
    enlarged = resize(score_map, (height, width))
    return Row([draw_boxes(image, truth.boxes, box), heatmap(image, enlarged),
                outline(image, enlarged > threshold)], caption)


def curves(methods: dict[str, Method]) -> bytes:
    """MaxBoxAcc over the threshold, a curve for each method, as the content of a PNG file."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for name, method in methods.items():
        steps = len(method.boxes.curve)
        axes.plot(np.arange(steps) / steps, method.boxes.curve, label=name)
    axes.set(xlabel='threshold', ylabel='boxes with IoU >= 0.5', xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    return png_of(figure)
