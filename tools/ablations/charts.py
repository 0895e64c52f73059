"""The figures of the ablation, each as the content of a PNG file."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.ablations.variants import FUSIONS, PAPER, STAGES, read_metrics, run_folder
from tools.records import Rows, mean_and_std
from utils.outputs.drawing import png_of


def figure_1b(rows: Rows) -> bytes:
    """Fig. 1(b): GT-known and MaxBoxAccV2 over the number of stages fused, a line for each
    fusion."""
    chart = Figure(figsize=(10, 4), layout='constrained')
    for axes, name in zip(chart.subplots(1, 2), ('GT-known', 'MaxBoxAccV2'), strict=True):
        plot(axes, {fusion: [rows['stage 5 alone'][name],
                             *(rows[f'{fusion} {stages}'][name] for stages in STAGES[1:])]
                    for fusion in FUSIONS})
        axes.set(xlabel='last stages fused', ylabel=f'{name}, %', xticks=range(1, 5))
    return png_of(chart)


def curves(out: Path, seeds: list[int]) -> dict[str, list[tuple[float, float]]]:
    """GT-known at 0.2 in percent after each epoch, mean and standard deviation."""
    result = {}
    for label, name in (('fused CAM', PAPER), ('SPOL', 'SPOL')):
        result[label] = points = []
        while runs := [read_metrics(run_folder(out, number, name) / f'epoch-{len(points) + 1}')
                       for number in seeds]:
            if not all(runs):
                break
            points.append(mean_and_std([100 * run['strict']['gt_known'] for run in runs]))
    return result


def learning_curve(points: dict[str, list[tuple[float, float]]]) -> bytes:
    """GT-known over the epochs of each stage."""
    chart = Figure(figsize=(6, 4), layout='constrained')
    axes = chart.subplots()
    plot(axes, points)
    axes.set(xlabel='epochs of its stage', ylabel='GT-known at 0.2, %')
    return png_of(chart)


def plot(axes: Axes, lines: dict[str, list[tuple[float, float]]]) -> None:
    """A line of means with their standard deviations for each name, over 1, 2, ..."""
    for name, points in lines.items():
        means, deviations = zip(*points, strict=True)
        axes.errorbar(range(1, len(points) + 1), means, deviations, marker='o', capsize=3,
                      label=name)
    axes.grid(alpha=0.3)
    axes.legend()
