"""Mean and standard deviation of the metrics of several runs."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

FIGURES = ('GT-known', 'best threshold', 'MaxBoxAcc', 'MaxBoxAccV2', 'PxAP')


def figures_of(record: Mapping) -> dict[str, float]:
    """FIGURES in percent, of what an evaluation with --sweep has written to results.json."""
    values = (record['strict']['gt_known'], record['sweep']['best']['strict']['gt_known'],
              record['max_box_acc'], record['max_box_acc_v2'], record['pxap'])
    return {name: 100 * value for name, value in zip(FIGURES, values, strict=True)
            if value is not None}


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation (0 of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summaries(runs: Mapping[str, Sequence[Mapping[str, float]]]
              ) -> dict[str, dict[str, tuple[float, float]]]:
    """{name: figures of each run} -> {name: {figure: (mean, standard deviation)}}."""
    return {name: {figure: mean_and_std([run[figure] for run in several])
                   for figure in several[0]}
            for name, several in runs.items()}


def markdown(title: str, rows: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """The summaries as a Markdown table, `mean ± standard deviation`; `title` heads the names."""
    lines = [f'| {title} | {" | ".join(FIGURES)} |', '| --- ' * (len(FIGURES) + 1) + '|']
    for name, row in rows.items():
        cells = (f'{row[figure][0]:.1f} ± {row[figure][1]:.1f}' if figure in row else ''
                 for figure in FIGURES)
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def csv_rows(rows: Mapping[str, Mapping[str, tuple[float, float]]]) -> Iterable[tuple]:
    """(name, figure, mean, standard deviation) of each name and figure."""
    for name, row in rows.items():
        for figure, (mean, std) in row.items():
            yield name, figure, round(mean, 4), round(std, 4)
