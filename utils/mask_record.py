"""masks.json in a folder of pseudo masks: which checkpoint has made them, of which lists."""

from pathlib import Path
from typing import Any

from network.weights import digest
from utils.distributed import is_main_process
from utils.errors import InputError, warn
from utils.files import read_json, read_stamp, source_of, write_json
from utils.lists import ImageList

RECORD = 'masks.json'


def write_record(folder: Path, record: dict[str, Any], overwrite: bool,
                 lists: dict[str, int] | None = None) -> dict[str, int]:
    """Write masks.json, on rank 0; the lists whose masks are complete, by default those that are.
    Raises InputError if the masks in the folder are another run's, unless `overwrite`."""
    old = read_json(folder / RECORD)
    same = all(old.get(name) == value for name, value in record.items() if name != 'checkpoint')
    made_by = Path(old.get('checkpoint', ''))
    if old and not (same or overwrite or made_by.parent == Path(record['checkpoint']).parent):
        raise InputError(f'the masks in {folder} were made by {made_by} at --resize '
                         f'{old["resize"]}, another run: give another --maskpath, or --overwrite')
    if lists is None:
        lists = old['lists'] if same else {}
    if is_main_process():
        write_json(folder / RECORD, {**record, 'lists': lists})
    return lists


def describe_masks(folder: Path, images: ImageList, clsnum: int) -> None:
    """Print, on rank 0, what has made the masks of a training; warns of any mismatch. Raises
    InputError for images that were replaced since their masks were made."""
    if not is_main_process():
        return
    looked_at = images.sample(1000)
    stamps = {index: read_stamp(images.mask_path(folder, index)) for index in looked_at}
    old = [images.name(index) for index, stamp in stamps.items()
           if stamp and stamp.split()[-1] != source_of(images.path(index))]
    if old and len(old) < len(looked_at) / 2:  # if all differ, the images were copied
        raise InputError(f'{len(old)} images are newer than their pseudo masks in {folder}, the '
                         f"first is {old[0]}: run the cam stage's test.py --resume")
    record = read_json(folder / RECORD)
    if not record:
        print(f'pseudo masks: {folder}; there is no {RECORD} that says what has made them')
        return
    path = Path(record['checkpoint'])
    if record['clsnum'] != clsnum:
        warn(f'{folder}: made for {record["clsnum"]} classes, not {clsnum}')
    if images.checksum() not in record['lists'].values():
        warn(f'{folder}: not for all of {images.source}')
    if path.is_file() and digest(path) != record['sha256']:
        warn(f'{folder}: {path.name} has changed since')
    print(f'pseudo masks: {folder}, made by {path} at --resize {record["resize"]}')
