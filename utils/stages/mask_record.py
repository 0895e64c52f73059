"""masks.json in a folder of pseudo masks: which checkpoint has made them, of which lists."""

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
    """`started`: when, in seconds; older masks are another checkpoint's. `lists`: those whose masks
    are complete, with their checksums."""

    checkpoint: str
    sha256: str
    resize: int
    clsnum: int
    started: int = field(default_factory=lambda: int(time.time()))
    lists: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path, complete: ImageList | None = None) -> None:
        """Write masks.json, on rank 0."""
        lists = {str(complete.source): complete.checksum()} if complete else {}
        if is_main_process():
            write_json(folder / FILE, {**asdict(self), 'lists': {**self.lists, **lists}})


def read_record(folder: Path) -> MaskRecord | None:
    """The record of a folder; None if there is none that can be read."""
    content = read_results(folder / FILE)
    return MaskRecord(**content) if content.keys() == {f.name for f in fields(MaskRecord)} else None


def claim_masks(folder: Path, checkpoint: Path, resize: int, clsnum: int, resume: bool = False,
                overwrite: bool = False) -> MaskRecord | None:
    """The record for masks that a checkpoint is about to make; None if it resumes masks that have
    none. Raises InputError if the masks in the folder are another run's, unless `overwrite`, and to
    resume also if they are another checkpoint's of the same run."""
    old, new = read_record(folder), MaskRecord(str(checkpoint), digest(checkpoint), resize, clsnum)
    if old is None:
        return None if resume else new
    if (old.sha256, old.resize) == (new.sha256, new.resize):
        return old
    made = f'the masks in {folder} were made by {old.checkpoint} at --resize {old.resize}'
    if resume:
        raise InputError(f'--resume: {made}: leave out --resume to make all of them again')
    if Path(old.checkpoint).parent != checkpoint.parent and not overwrite:
        raise InputError(f'{made}, another run: give another --maskpath, or --overwrite')
    return new


def describe_masks(folder: Path, images: ImageList, clsnum: int) -> None:
    """Print, on rank 0, what has made the masks of a training, and what speaks against them."""
    record = read_record(folder)
    if not is_main_process():
        return
    if record is None:
        print(f'pseudo masks: {folder}; there is no {FILE} that says what has made them')
        return
    path = Path(record.checkpoint)
    doubts = {f'made for {record.clsnum} classes, not {clsnum}': record.clsnum != clsnum,
              f'not for all of {images.source}': images.checksum() not in record.lists.values(),
              f'{path.name} has changed since': path.is_file() and digest(path) != record.sha256}
    warnings = ''.join(f'; warning: {doubt}' for doubt, applies in doubts.items() if applies)
    print(f'pseudo masks: {folder}, made by {path} at --resize {record.resize}{warnings}')
