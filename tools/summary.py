"""Mean and standard deviation of the metrics of several runs."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

METRICS = ('GT-known', 'best threshold', 'MaxBoxAcc', 'MaxBoxAccV2', 'PxAP')


def metrics_of(record: Mapping) -> dict[str, float]:
    """METRICS in percent, of what an evaluation with --sweep has written to results.json."""
    values = (record['strict']['gt_known'], record['sweep']['best']['strict']['gt_known'],
              record['max_box_acc'], record['max_box_acc_v2'], record['pxap'])
    return {name: 100 * value for name, value in zip(METRICS, values, strict=True)
            if value is not None}


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation (0 of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summaries(runs: Mapping[str, Sequence[Mapping[str, float]]]
              ) -> dict[str, dict[str, tuple[float, float]]]:
    """{name: metrics of each run} -> {name: {metric: (mean, standard deviation)}}."""
    return {name: {metric: mean_and_std([run[metric] for run in several])
                   for metric in several[0]}
            for name, several in runs.items()}


def markdown(title: str, rows: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """The summaries as a Markdown table, `mean ± standard deviation`; `title` heads the names."""
    lines = [f'| {title} | {" | ".join(METRICS)} |', '| --- ' * (len(METRICS) + 1) + '|']
    for name, row in rows.items():
        cells = (f'{row[metric][0]:.1f} ± {row[metric][1]:.1f}' if metric in row else ''
                 for metric in METRICS)
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def csv_rows(rows: Mapping[str, Mapping[str, tuple[float, float]]]) -> Iterable[tuple]:
    """(name, metric, mean, standard deviation) of each name and metric."""
    for name, row in rows.items():
        for metric, (mean, std) in row.items():
            yield name, metric, round(mean, 4), round(std, 4)
