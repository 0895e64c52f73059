"""masks.json in a folder of pseudo masks: which checkpoint made them, of which lists.

cam/test writes it, and does not overwrite another run's masks by accident; seg/train says whose
masks it trains on.
"""

import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from network.download import digest
from utils.data.lists import ImageList
from utils.engine.distributed import is_main_process
from utils.errors import InputError
from utils.outputs.files import write_json
from utils.outputs.results import read_results

FILE = 'masks.json'


@dataclass(frozen=True)
class MaskRecord:
    """`started`: the time in seconds; older masks in the folder are another checkpoint's. `lists`:
    the checksum of each list, by its path, whose masks are complete."""

    checkpoint: str
    sha256: str
    resize: int
    clsnum: int
    started: int = field(default_factory=lambda: int(time.time()))
    lists: dict[str, int] = field(default_factory=dict)

    def makes_the_same_as(self, other: 'MaskRecord') -> bool:
        return (self.sha256, self.resize) == (other.sha256, other.resize)

    def write(self, folder: Path, complete: ImageList | None = None) -> None:
        """Write masks.json, on rank 0; with `complete` once all masks of that list are made."""
        lists = {str(complete.source): complete.checksum()} if complete else {}
        if is_main_process():
            write_json(folder / FILE, {**asdict(self), 'lists': {**self.lists, **lists}})


def read_record(folder: Path) -> MaskRecord | None:
    """The record of a folder; None if it has none that can be read."""
    content = read_results(folder / FILE)
    return MaskRecord(**content) if content.keys() == {f.name for f in fields(MaskRecord)} else None


def claim_masks(folder: Path, checkpoint: Path, resize: int, clsnum: int, resume: bool = False,
                overwrite: bool = False) -> MaskRecord | None:
    """The record for the masks that a checkpoint is about to make, or to go on making; None for
    those of unknown origin that a run resumes.

    Raises InputError if the masks in the folder are another run's, unless `overwrite`; for a run
    that resumes, also if they are another checkpoint's of the same run.
    """
    old, new = read_record(folder), MaskRecord(str(checkpoint), digest(checkpoint), resize, clsnum)
    if old is None:
        return None if resume else new
    if old.makes_the_same_as(new):
        return old
    made = f'the masks in {folder} were made by {old.checkpoint} at --resize {old.resize}'
    if resume:
        raise InputError(f'--resume: {made}: leave out --resume to make all of them again')
    if Path(old.checkpoint).parent != checkpoint.parent and not overwrite:
        raise InputError(f'{made}, which is another run: choose another --maskpath, or add '
                         '--overwrite')
    return new


def describe_masks(folder: Path, images: ImageList, clsnum: int) -> None:
    """Print, on rank 0, whose masks a training is about to use, and what speaks against them."""
    if not is_main_process():
        return
    record = read_record(folder)
    if record is None:
        print(f'pseudo masks: {folder}; what made them is not known, there is no {FILE}')
        return
    path = Path(record.checkpoint)
    doubts = {
        f'they were made for {record.clsnum} classes, not {clsnum}': record.clsnum != clsnum,
        f'not all of {images.source} were made': images.checksum() not in record.lists.values(),
        f'{path.name} has changed since': path.is_file() and digest(path) != record.sha256}
    warning = ''.join(f'; warning: {doubt}' for doubt, applies in doubts.items() if applies)
    print(f'pseudo masks: {folder}, made by {path} at --resize {record.resize}{warning}')
