"""Bring CUB-200-2011 into the layout that the stages read.

    python dataset/prepare_cub.py --download                        # 1.1 GB, resumed if it breaks
    python dataset/prepare_cub.py --source CUB_200_2011.tgz         # the official archive
    python dataset/prepare_cub.py --source CUB_200_2011             # or the unpacked folder

    <out>/image/<class>/<name>.jpg
    <out>/segmentation/<class>/<name>.png   where the separate segmentations archive is there
    <out>/train.txt, <out>/val.txt          <class>/<name>.jpg,<label>,<xmin> <ymin> <xmax> <ymax>

Labels count from 0; the lists have the order of the official images.txt; val is the official test
split. A box is the official x, y, x + width, y + height; a few stick out of their image.

The segmentations are published apart from the images. Where --segmentations does not name their
folder or archive, segmentations and segmentations.tgz are looked for beside the source.

The files of a folder are linked, not copied (hard links, so that the folder may go), and what is
there already is kept; an archive is unpacked beside <out> first. The lists are written last.
"""

import argparse
import lzma
import os
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

from links import link_file
from tqdm import tqdm

from network.download import CHUNK, download
from utils.arguments import Parser
from utils.data.lists import checked_name
from utils.errors import InputError, run
from utils.outputs.files import write_text

URL = 'https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz'
CHECKSUM = 'md5:97eceeb196236b17998738112f37df78'
ROOT_NAME = 'CUB_200_2011'
SEGMENTATIONS = 'segmentations'
CLASSES = 200
LARGEST_ID = 10**9

Value = TypeVar('Value')


class Metadata(NamedTuple):
    """The official text files; each maps an image id, in the file's order."""

    names: dict[int, str]
    labels: dict[int, int]  # from 0
    training: dict[int, int]  # 1 or 0
    boxes: dict[int, str]  # 'xmin ymin xmax ymax'


# ---------------------------------------------------------------- official text files


def read_metadata(root: Path) -> Metadata:
    """Read and check the four files; raises InputError for a bad line and for ids that differ."""
    parsers = {'images.txt': image_name,
               'image_class_labels.txt': lambda text, where: integer(text, 1, CLASSES, where) - 1,
               'train_test_split.txt': lambda text, where: integer(text, 0, 1, where),
               'bounding_boxes.txt': corner_box}
    metadata = Metadata(*(read_by_id(root / file, parse) for file, parse in parsers.items()))
    every_id = set().union(*metadata)
    for file, values in zip(parsers, metadata, strict=True):
        if missing := every_id - values.keys():
            raise InputError(f'{root / file} lacks {len(missing)} ids that the other files have, '
                             f'the first is {min(missing)}: get the file again')
    check_no_duplicates(root / 'images.txt', metadata.names)
    return metadata


def read_by_id(path: Path, parse: Callable[[str, str], Value]) -> dict[int, Value]:
    """Read lines `<id> <text>` into {id: parse(text, 'file, line N')}."""
    values = {}
    try:
        with open(path, encoding='utf-8', errors='backslashreplace') as file:
            for number, line in enumerate(file, 1):
                where = f'{path}, line {number}'
                identity, _, text = line.strip().partition(' ')
                key = integer(identity, 1, LARGEST_ID, where)
                if key in values:
                    raise InputError(f'{where}: the id {key} is duplicated: get the file again')
                values[key] = parse(text, where)
    except OSError as error:
        raise InputError(f'cannot read {path} ({error.strerror}): it is part of CUB_200_2011.tgz, '
                         'unpack that again') from error
    if not values:
        raise InputError(f'{path} is empty: get the file again')
    return values


def image_name(text: str, where: str) -> str:
    name = checked_name(text, where)
    if ',' in name or len(PurePosixPath(name).parts) != 2 or not name.endswith('.jpg'):
        raise InputError(f'{where}: expected `<id> <class>/<name>.jpg`, found {text[:80]!r}: '
                         'get the file again')
    return name


def integer(text: str, least: int, most: int, where: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else least - 1
    if not least <= value <= most:
        raise InputError(f'{where}: expected an integer from {least} to {most}, found '
                         f'{text[:80]!r}: get the file again')
    return value


def corner_box(text: str, where: str) -> str:
    """Official `x y width height` -> `xmin ymin xmax ymax`, whole pixels, xmax = x + width."""
    try:
        x, y, width, height = (float(value) for value in text.split())
    except ValueError:
        raise InputError(f'{where}: expected `<id> <x> <y> <width> <height>`, found '
                         f'{text[:80]!r}: get the file again') from None
    corners = (x, y, x + width, y + height)
    if not all(map(isfinite, corners)):
        raise InputError(f'{where}: the box {text[:80]!r} is not finite: get the file again')
    xmin, ymin, xmax, ymax = map(int, corners)
    if xmax <= xmin or ymax <= ymin:
        raise InputError(f'{where}: the box {text[:80]!r} has no area: get the file again')
    return f'{xmin} {ymin} {xmax} {ymax}'


def check_no_duplicates(path: Path, names: dict[int, str]) -> None:
    seen = {}
    for key, name in names.items():
        if (first := seen.setdefault(name, key)) != key:
            raise InputError(f'{path}: the ids {first} and {key} are the same image {name}: '
                             'get the file again')


def list_lines(metadata: Metadata, training: int) -> Iterator[str]:
    """The lines of train.txt (training = 1) or val.txt (0), in the order of images.txt."""
    return (f'{name},{metadata.labels[key]},{metadata.boxes[key]}\n'
            for key, name in metadata.names.items() if metadata.training[key] == training)


# ---------------------------------------------------------------- images and masks


def place_files(source: Path, target: Path, names: list[str],
                place: Callable[[Path, Path], None]) -> None:
    """Place the files of `source` in `target`. Raises InputError if one is missing; then none is
    placed."""
    missing = [name for name in names if not (source / name).is_file()]
    if missing:
        raise InputError(f'{source} lacks {len(missing)} of {len(names)} files, the first is '
                         f'{missing[0]}: unpack the archive again')
    for name in tqdm(names, desc=target.name, unit='file', disable=None):
        place(source / name, target / name)


def move_file(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    except OSError as error:
        raise InputError(f'cannot write {target} ({error.strerror}): '
                         'check the folder and its rights') from error


# ---------------------------------------------------------------- archives


@contextmanager
def open_source_folder(source: Path, scratch: Path
                       ) -> Iterator[tuple[Path, Callable[[Path, Path], None]]]:
    """Yield the data folder and the function that links or moves files from it. `source`: a folder
    or an archive."""
    if source.is_dir():
        yield source, link_file
    elif source.is_file():
        shutil.rmtree(scratch, ignore_errors=True)  # an interrupted run's
        try:
            unpack(source, scratch)
            yield scratch, move_file
        except InputError as error:  # name the archive, not the temporary folder
            raise InputError(str(error).replace(str(scratch), str(source))) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    else:
        raise InputError(f'no {source}: give the archive or the unpacked folder')


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive, or a tar archive packed in any way; raises InputError for a damaged
    one, and for one with anything but files and folders that stay in `folder`."""
    try:
        folder.mkdir(parents=True)
        (unpack_zip if zipfile.is_zipfile(archive) else unpack_tar)(archive, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError,
            NotImplementedError, RuntimeError) as error:  # the last two: encrypted, unknown
        raise InputError(f'cannot unpack {archive} ({error}): get the archive again, and check '
                         'the free space') from error


def unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as members:
        for name in members.namelist():
            checked_name(name, str(archive))
        for name in tqdm(members.namelist(), archive.name, unit='file', disable=None):
            members.extract(name, folder)


def unpack_tar(archive: Path, folder: Path) -> None:
    with (
        open(archive, 'rb') as file,
        tqdm.wrapattr(file, 'read', total=archive.stat().st_size, desc=archive.name,
                      disable=None) as bytes_,
        # Not as a stream, 'r|*', to which the end of a cut file is the end of the archive.
        tarfile.open(fileobj=bytes_, mode='r:*') as members,
    ):
        # Python before 3.10.12 and 3.11.4 has no filter; check_member has looked already.
        members.extraction_filter = getattr(tarfile, 'data_filter', lambda member, path: member)
        for member in members:
            check_member(member, archive)
            members.extract(member, folder)
        # Checksums and end-of-file markers come after the last member.
        while members.fileobj.read(CHUNK):
            pass


def check_member(member: tarfile.TarInfo, archive: Path) -> None:
    if member.name != '.':  # `tar c .` packs the folder itself, and names that begin with ./
        checked_name(member.name.removeprefix('./'), str(archive))
    if not (member.isfile() or member.isdir()):
        raise InputError(f'{archive}: the member {member.name[:80]!r} is a link or a device: '
                         'get the official archive')


def find_root(folder: Path, marker: str, below: str) -> Path:
    """`folder`, or the folder `below` in it: the one that has `marker`."""
    for root in (folder, folder / below):
        if (root / marker).exists():
            return root
    raise InputError(f'no {marker} in {folder} or its {below}: this is not the official data')


# ---------------------------------------------------------------- command line


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--download', action='store_true', help='fetch the archive, beside --out')
    source.add_argument('--source', type=Path, help='the archive, or the unpacked folder')
    parser.add_argument('--segmentations', type=Path, help='their archive or unpacked folder')
    parser.add_argument('--out', type=Path, default=Path(__file__).resolve().parent / ROOT_NAME,
                        help='folder to fill')
    return parser.parse_args()


def find_segmentations(source: Path) -> Path | None:
    """The masks in the source folder, or beside the source; None if they are not there."""
    folders = [source, source.parent] if source.is_dir() else [source.parent]
    places = [folder / name for folder in folders
              for name in (SEGMENTATIONS, f'{SEGMENTATIONS}.tgz')]
    return next((place for place in places if place.exists()), None)


def prepare(source: Path, segmentations: Path | None, out: Path) -> dict[str, int]:
    """Fill `out`; returns the number of images in train and val, and of masks."""
    scratch = out.with_name(f'.{out.name}.unpacked')
    with open_source_folder(source, scratch) as (folder, place):
        root = find_root(folder, 'images.txt', ROOT_NAME)
        metadata = read_metadata(root)
        place_files(root / 'images', out / 'image', list(metadata.names.values()), place)
    masks = [name.removesuffix('.jpg') + '.png' for name in metadata.names.values()]
    if segmentations:
        with open_source_folder(segmentations, scratch) as (folder, place):
            root = find_root(folder, PurePosixPath(masks[0]).parts[0], SEGMENTATIONS)
            place_files(root, out / 'segmentation', masks, place)
    train, val = list(list_lines(metadata, 1)), list(list_lines(metadata, 0))
    write_text(out / 'train.txt', ''.join(train))
    write_text(out / 'val.txt', ''.join(val))
    return {'train': len(train), 'val': len(val), 'masks': len(masks) if segmentations else 0}


def main() -> None:
    args = parse_args()
    out = args.out.resolve()
    source = (download(URL, out.with_name(f'{ROOT_NAME}.tgz'), CHECKSUM) if args.download
              else args.source.resolve())
    counts = prepare(source, args.segmentations or find_segmentations(source), out)
    print(f"{args.out}: {counts['train']} training and {counts['val']} val images, "
          f"{counts['masks'] or 'no'} segmentation masks")


if __name__ == '__main__':
    run(main)
