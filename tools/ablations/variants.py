"""What the ablation compares, with which settings, and where its runs lie."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.outputs.results import read_results

STAGES = ('5', '45', '345', '2345')  # of the backbone
FUSIONS = ('add', 'concatenate', 'multiply')
PAPER = 'multiply 345'
VARIANTS = {  # name -> the parameters of CamNet
    PAPER: {},
    'without MCA': {'attention': False},
    'without self-distillation': {'auxiliary': False},
    'stage 5 alone': {'stages': '5', 'auxiliary': False},  # nothing to distil from
    **{f'{fusion} {stages}': {'stages': stages, 'fusion': fusion}
       for stages in STAGES[1:] for fusion in FUSIONS if f'{fusion} {stages}' != PAPER},
}
WITHOUT_PRIOR = 'SPOL without the Gaussian prior'
PARTS = {  # row of the table -> run
    'CAM without MCA': 'without MCA',
    'CAM without self-distillation': 'without self-distillation',
    'CAM, complete (multiply 345)': PAPER,
    'segmentation, pseudo masks without the Gaussian prior': WITHOUT_PRIOR,
    'segmentation: SPOL': 'SPOL',
}


@dataclass(frozen=True)
class Settings:
    """The settings that all training runs of an ablation share.

    data: a data folder in the CUB layout; None: drawn birds or composites, made for each seed.
    train, val: the lists, absolute paths or files in the data folder.
    """

    data: str | None
    train: str
    val: str
    photos: str | None
    classes: int
    backbone: str
    resize: int
    crop: int
    batch_size: int
    cam_epochs: int
    seg_epochs: int
    seg_lr: float
    device: str


def data_folder(out: Path, number: int, settings: Settings) -> Path:
    return Path(settings.data) if settings.data else out / f'seed{number}' / 'data'


def run_folder(out: Path, number: int, name: str) -> Path:
    return out / f'seed{number}' / name.replace(' ', '-')


def figure_1b_names() -> Iterator[str]:
    yield 'stage 5 alone'
    for fusion in FUSIONS:
        yield from (f'{fusion} {stages}' for stages in STAGES[1:])


def read_metrics(folder: Path) -> dict:
    """The metrics in a folder's results.json, of the fused CAMs or of the segmentation; empty if
    there are none."""
    record = read_results(folder / 'results.json')
    record = record.get('evaluation', {}).get('fused', record)
    return record if 'strict' in record else {}
