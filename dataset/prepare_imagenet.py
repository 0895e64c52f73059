"""Bring ILSVRC2012 (ImageNet-1K, CLS-LOC) into the layout that the stages read.

    python dataset/prepare_imagenet.py --source ILSVRC
    python dataset/prepare_imagenet.py --source imagenet --boxes ILSVRC2012_bbox_val_v3/val

The source has train/<wnid>/*.JPEG and val/, flat or in folders named by wnid (both may lie in its
Data/CLS-LOC/), and the XML files of the val boxes, at any depth below its Annotations/ or below
--boxes. A tree that lacks some of the 1,000 classes is taken as it is.

    <out>/train/, <out>/val/                links to the source's images; val is flat
    <out>/box/<name>.xml                    the boxes of a val image
    <out>/train.txt, <out>/val.txt          <wnid>/<name>.JPEG <label>, <name>.JPEG <label>
    <out>/disagreements.txt                 inconsistent annotations of val images, if any

The label is the index of the wnid in imagenet_wnids.txt. The wnid of a val image comes from its
folder, else from the first object of its XML; an image that has neither is skipped. --out may be
the source itself. Existing files are kept, so that the same command continues an interrupted run.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

from links import link_file, link_folder
from tqdm import tqdm

from utils.arguments import Parser
from utils.data.imagenet import WNIDS
from utils.data.lists import read_wnids, read_xml_objects
from utils.errors import InputError, run
from utils.outputs.files import atomic_write, write_text

IMAGE_SUFFIX = '.JPEG'
KAGGLE_FOLDER = Path('Data', 'CLS-LOC')
DISAGREEMENTS = 'disagreements.txt'
FOLDER_DIFFERS = 'its folder and its XML name different classes'
SEVERAL_CLASSES = 'its XML names several classes'
NO_XML = 'it has no XML'
NO_OBJECT = 'its XML has no object'
NO_LABEL = 'skipped: no label'


class Entries(NamedTuple):
    """What is in a folder, sorted; `others` counts what is neither image nor folder."""

    images: list[str]
    folders: list[str]
    others: int


class ValImage(NamedTuple):
    path: Path
    wnid: str | None  # of its folder; None if val is flat


# ---------------------------------------------------------------- the source's folders


def scan(folder: Path) -> Entries:
    """Names of the images and folders in `folder`; raises InputError where there is none."""
    images, folders, others = [], [], 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.name.endswith(IMAGE_SUFFIX) and not entry.name.startswith('.'):
                    images.append(checked_image_name(entry.name, folder))
                else:
                    others += 1
    except OSError as error:
        raise InputError(f'cannot read the folder {folder} ({error.strerror}): check --source; '
                         'it needs train/ and val/') from error
    return Entries(sorted(images), sorted(folders), others)


def checked_image_name(name: str, folder: Path) -> str:
    """`name` if a line of a list can hold it."""
    if ' ' in name or not name.isprintable():
        raise InputError(f'{folder}: the image name {name!r} has a space or an unprintable '
                         'character: rename it')
    return name


def check_wnids(names: list[str], labels: dict[str, int], folder: Path) -> None:
    if unknown := [name for name in names if name not in labels]:
        raise InputError(f'{folder / unknown[0]}: not one of the 1,000 wnids in '
                         f'dataset/imagenet_wnids.txt (and {len(unknown) - 1} more): move it away')


# ---------------------------------------------------------------- train


def prepare_train(folder: Path, out: Path, labels: dict[str, int]) -> Counter:
    """Link train/ and write train.txt; returns the numbers of images, classes and other files."""
    top = scan(folder)
    check_wnids(top.folders, labels, folder)
    counts = Counter(others=top.others + len(top.images))

    def write_lines(file: BinaryIO) -> None:
        for wnid in tqdm(sorted(top.folders, key=labels.__getitem__), desc='train', unit='class',
                         disable=None):
            entries = scan(folder / wnid)
            file.write(''.join(f'{wnid}/{name} {labels[wnid]}\n'
                               for name in entries.images).encode())
            counts.update(images=len(entries.images), classes=bool(entries.images),
                          others=entries.others + len(entries.folders))
        if not counts['images']:
            raise InputError(f'no <wnid>/*{IMAGE_SUFFIX} in {folder}: check --source')

    link_folder(folder, out / 'train')
    atomic_write(out / 'train.txt', write_lines)
    return counts


# ---------------------------------------------------------------- val


def find_val_images(folder: Path, labels: dict[str, int]) -> tuple[dict[str, ValImage], int]:
    """{name without suffix: image} of val/, flat or in wnid folders, sorted by name; and the number
    of other files there.

    An image that lies flat and in a folder is one image: a second run finds the first one's links.
    """
    top = scan(folder)
    check_wnids(top.folders, labels, folder)
    images = {Path(name).stem: ValImage(folder / name, None) for name in top.images}
    others = top.others
    for wnid in top.folders:
        entries = scan(folder / wnid)
        others += entries.others + len(entries.folders)
        for name in entries.images:
            earlier = images.get(Path(name).stem)
            if earlier and earlier.wnid:
                raise InputError(f'{name} is in {folder / earlier.wnid} and in {folder / wnid}: '
                                 'remove the wrong one')
            images[Path(name).stem] = ValImage(folder / wnid / name, wnid)
    if not images:
        raise InputError(f'no *{IMAGE_SUFFIX} in {folder}: check --source')
    return dict(sorted(images.items())), others


def link_val(folder: Path, out: Path, images: dict[str, ValImage]) -> None:
    target = out / 'val'
    if all(image.wnid is None for image in images.values()):
        link_folder(folder, target)
        return
    if target.is_symlink() and out.resolve() != folder.parent:
        target.unlink()  # an earlier run's, when val was flat: links must not go into the source
    for image in tqdm(images.values(), desc='val', unit='image', disable=None):
        link_file(image.path, target / image.path.name)


def find_boxes(folders: list[Path], images: dict[str, ValImage]) -> dict[str, Path]:
    """{name: XML file} of the images, at any depth; an earlier folder goes before a later one."""
    boxes: dict[str, Path] = {}
    for folder in folders:
        for parent, _, files in os.walk(folder):
            for file in files:
                name, suffix = os.path.splitext(file)
                if suffix == '.xml' and name in images:
                    boxes.setdefault(name, Path(parent, file))
    return boxes


def object_wnids(path: Path) -> list[str]:
    """The wnids that an XML file's objects name, each once, in their order.

    Raises InputError for a damaged file, and for one with entities or external references.
    """
    wnids = (entry.findtext('name', '').strip() for entry in read_xml_objects(path))
    return list(dict.fromkeys(wnids))


def resolve_wnid(folder_wnid: str | None, wnids: list[str] | None) -> tuple[str | None, list[str]]:
    """An image's class, None if nothing tells it, and its conflicts.

    wnids: of its XML's objects; None if it has no XML.
    """
    conflicts = []
    if not wnids:
        conflicts.append(NO_XML if wnids is None else NO_OBJECT)
    elif len(wnids) > 1:
        conflicts.append(SEVERAL_CLASSES)
    if folder_wnid and wnids and folder_wnid not in wnids:
        conflicts.append(FOLDER_DIFFERS)
    wnid = folder_wnid or (wnids[0] if wnids else None)
    return wnid, conflicts if wnid else [*conflicts, NO_LABEL]


def prepare_val(folder: Path, out: Path, boxes: Path, labels: dict[str, int]) -> Counter:
    """Link val/ and the boxes, write val.txt and disagreements.txt; returns the numbers of images,
    of those with an XML, of other files, and of each conflict."""
    images, others = find_val_images(folder, labels)
    link_val(folder, out, images)
    box_files = find_boxes([boxes, out / 'box'], images)
    counts, lines, disagreements = Counter(boxes=len(box_files), others=others), [], []
    for name, image in tqdm(images.items(), desc='box', unit='image', disable=None):
        file = box_files.get(name)
        wnid, conflicts = resolve_wnid(image.wnid, object_wnids(file) if file else None)
        if wnid not in labels and wnid is not None:
            raise InputError(f'{file}: its object {wnid[:80]!r} is not one of the 1,000 wnids in '
                             'dataset/imagenet_wnids.txt: get the file again')
        if file:
            link_file(file, out / 'box' / f'{name}.xml')
        if wnid:
            lines.append(f'{image.path.name} {labels[wnid]}\n')
        disagreements.extend(f'{image.path.name}: {conflict}\n' for conflict in conflicts)
        counts.update(conflicts)
    if not lines:
        raise InputError(f'nothing tells the classes of the images in {folder}, which is flat and '
                         f'without XML files in {boxes}: check --boxes')
    if disagreements:
        write_text(out / DISAGREEMENTS, ''.join(disagreements))
    else:
        (out / DISAGREEMENTS).unlink(missing_ok=True)  # an earlier run's
    write_text(out / 'val.txt', ''.join(lines))
    counts['images'] = len(lines)
    return counts


# ---------------------------------------------------------------- command line


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument('--source', type=Path, required=True, help='the ILSVRC2012 tree')
    parser.add_argument('--boxes', type=Path, help='the XML files; None = SOURCE/Annotations')
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('ImageNet2012'),
                        help='folder to fill')
    args = parser.parse_args()
    if args.boxes and not args.boxes.is_dir():
        raise InputError(f'no folder {args.boxes}: check --boxes')
    return args


def report(out: Path, train: Counter, val: Counter) -> Iterator[str]:
    yield (f"{out}: train: {train['images']} images of {train['classes']} classes; "
           f"val: {val['images']} images, {val['boxes']} with boxes")
    for split, counts in (('train', train), ('val', val)):
        if counts['others']:
            yield (f"{split}: {counts['others']} other files, which are in no list: images end in "
                   f'{IMAGE_SUFFIX}')
    for conflict in (FOLDER_DIFFERS, SEVERAL_CLASSES, NO_XML, NO_OBJECT, NO_LABEL):
        if val[conflict]:
            yield f'val: {val[conflict]} images: {conflict} (named in {out / DISAGREEMENTS})'


def main() -> None:
    args = parse_args()
    source = args.source.resolve()
    root = source / KAGGLE_FOLDER if (source / KAGGLE_FOLDER).is_dir() else source
    labels = {wnid: index for index, wnid in enumerate(read_wnids(WNIDS))}
    train = prepare_train(root / 'train', args.out, labels)
    val = prepare_val(root / 'val', args.out, args.boxes or args.source / 'Annotations', labels)
    print(*report(args.out, train, val), sep='\n')


if __name__ == '__main__':
    run(main)
