"""The measurements that README and docs show: one JSON file in results/ for each group of rows,
data set and seed.

    name, set, seed   the group (demo, fusion, parts, ...), the data set and the seed
    metrics           {row of the table: {metric: value in %}}
    command, commit   what was run; a commit ends in -dirty if the code had been edited
    versions, processor, seconds (of training and testing), date
"""

import json
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

from utils.arguments import ROOT
from utils.errors import InputError
from utils.outputs.files import write_json

RESULTS = ROOT / 'results'
METRICS = ('GT-known', 'best threshold', 'MaxBoxAcc', 'MaxBoxAccV2', 'PxAP')
HEADINGS = {'GT-known': 'GT-known at 0.2', 'best threshold': 'GT-known, best threshold'}
TITLES = {'fusion': 'fused stages (box of the CAM)', 'parts': 'parts of SPOL'}
UNTRAINED = ('whole image', 'best centred box')  # rows without a standard deviation
CPU_FLAGS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16')  # decide which kernels are used
Rows = dict[str, dict[str, tuple[float, float]]]  # {row: {metric: (mean, standard deviation)}}


def metrics_of(evaluation: Mapping) -> dict[str, float]:
    """METRICS in percent, of what an evaluation with --sweep has written to results.json."""
    values = (evaluation['strict']['gt_known'], evaluation['sweep']['best']['strict']['gt_known'],
              evaluation['max_box_acc'], evaluation['max_box_acc_v2'], evaluation['pxap'])
    return {name: round(100 * value, 2) for name, value in zip(METRICS, values, strict=True)
            if value is not None}


def set_name(data: str | None, train: str, photos: bool) -> str:
    """The name of a data set: its folder's (with another training list than train.txt, the list's
    as well), or that of the images that the demo makes."""
    if not data:
        return 'composites' if photos else 'drawn'
    stem = Path(train).name.removesuffix('.txt')
    return Path(data).name + ('' if stem == 'train' else f'-{stem}')


def set_flags(data: str | None, train: str, val: str, photos: bool) -> str:
    """The flags of demo.sh and tools/ablation.py for a data set, without the folder's place."""
    if not data:
        return ' --photos DIR' if photos else ''
    lists = ''.join(f' --{split} {Path(name).name}' for split, name in
                    (('train', train), ('val', val)) if Path(name).name != f'{split}.txt')
    return f' --data {Path(data).name}{lists}'


def commit() -> str:
    """The short commit of the code, with -dirty if tracked code differs from it; empty without
    git."""
    def git(*arguments: str) -> str:
        return subprocess.run(['git', '-C', ROOT, *arguments], capture_output=True, text=True,
                              check=True).stdout.strip()

    try:
        edited = git('status', '--porcelain', '--untracked-files=no', '--', '.', ':!results',
                     ':!docs', ':!*.md')
        return git('rev-parse', '--short', 'HEAD') + ('-dirty' if edited else '')
    except (OSError, subprocess.CalledProcessError):
        return ''


def processor() -> str:
    """The GPU's name, or the CPU's with those of CPU_FLAGS that it has."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        text = Path('/proc/cpuinfo').read_text()
    except OSError:
        return 'unknown'
    fields = dict(line.split(':', 1) for line in text.split('\n\n')[0].splitlines())
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set(fields.get('flags', '').split())
    return ' '.join([fields.get('model name', 'unknown'),
                     *(flag for flag in CPU_FLAGS if flag in flags)])


def write_record(name: str, data_set: str, seed: int, metrics: Mapping[str, Mapping[str, float]],
                 *, command: str, commit: str, versions: Mapping[str, str], seconds: float,
                 folder: Path = RESULTS) -> Path:
    """Write a record; an older one of the same name, set and seed is replaced."""
    path = folder / f'{data_set}-{name}-{seed}.json'
    write_json(path, {'name': name, 'set': data_set, 'seed': seed, 'metrics': metrics,
                      'command': command, 'commit': commit, 'versions': versions,
                      'processor': processor(), 'seconds': round(seconds),
                      'date': date.today().isoformat()})
    return path


def read_records(data_set: str, names: Iterable[str], folder: Path = RESULTS
                 ) -> dict[str, list[dict]]:
    """{name: its records over the seeds}. Raises InputError for a name without records."""
    everything = [json.loads(path.read_text()) for path in folder.glob('*.json')]
    found = {name: sorted((record for record in everything
                           if (record['set'], record['name']) == (data_set, name)),
                          key=lambda record: record['seed'])
             for name in names}
    for name, records in found.items():
        if not records:
            raise InputError(f'{folder} has no record of {name} on {data_set}: run it first')
    return found


def prefixed(records: list[dict], data_set: str) -> list[dict]:
    """The records with the data set behind the names of their rows."""
    return [{**record, 'metrics': {f'{row} ({data_set})': metrics
                                   for row, metrics in record['metrics'].items()}}
            for record in records]


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation (0 of a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summarize(records: list[dict]) -> Rows:
    """The rows of one name's records, over the seeds."""
    return {row: {metric: mean_and_std([record['metrics'][row][metric] for record in records])
                  for metric in metrics}
            for row, metrics in records[0]['metrics'].items()}


def table(groups: Mapping[str, list[dict]]) -> str:
    """Records as a Markdown table, and a line that says where they come from. Metrics that no row
    has are left out."""
    title = TITLES.get(next(iter(groups)), '')
    rows = [(name, row, 1 if name in UNTRAINED else len(records)) for records in groups.values()
            for name, row in summarize(records).items()]
    columns = [metric for metric in METRICS if any(metric in row for _, row, _ in rows)]
    headings = [HEADINGS.get(metric, metric) for metric in columns]
    lines = [f'| {title} | {" | ".join(headings)} |', '| --- ' * (len(columns) + 1) + '|']
    lines += [f'| {name} | {" | ".join(cell(row.get(metric), n) for metric in columns)} |'
              for name, row, n in rows if row.keys() & set(columns)]
    return '\n'.join([*lines, '', source_line(groups, rows)])


def cell(value: tuple[float, float] | None, count: int) -> str:
    if value is None:
        return ''
    return f'{value[0]:.1f} ± {value[1]:.1f}' if count > 1 else f'{value[0]:.1f}'


def source_line(groups: Mapping[str, list[dict]], rows: list[tuple]) -> str:
    """Seeds, classifier's accuracy, processors, versions and commits of the records."""
    records = [record for several in groups.values() for record in several]

    def distinct(values: Iterable[str]) -> str:
        return ', '.join(dict.fromkeys(map(str, values)))

    parts = ['seeds ' + distinct(record['seed'] for record in records)
             if len({record['seed'] for record in records}) > 1 else f'seed {records[0]["seed"]}']
    parts += [f'Top-1 of the {name} {cell(row["Top-1"], n)} %'
              for name, row, n in rows if 'Top-1' in row]
    parts += [distinct(f'PyTorch {record["versions"]["torch"]}' for record in records),
              distinct(record['processor'] for record in records),
              'commit ' + distinct(record['commit'] for record in records)]
    return f'<sub>{"; ".join(parts)}</sub>'
