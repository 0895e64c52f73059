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

import os
import sys
from collections import Counter
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
from preparation import is_hidden, link_file, link_folder
from tqdm import tqdm

from utils.arguments import Parser
from utils.errors import InputError, run
from utils.files import write_text
from utils.lists import WNIDS, imagenet_images, read_lines, read_xml_objects

KAGGLE_FOLDER = Path('Data', 'CLS-LOC')
DISAGREEMENTS = 'disagreements.txt'
OTHERS = ', and {} other files, which are in no list: images end in .JPEG'
FLAT = ''  # in place of the wnid of an image that lies in no class folder


def find_images(folder: Path, labels: dict[str, int]) -> tuple[list[tuple[str, str]], int]:
    """Sorted (wnid, name) of the images in the class folders of `folder` and in itself, and the
    number of other files. Raises InputError for a folder that is no class."""
    images, others = [], 0
    try:
        wnids = sorted(entry.name for entry in os.scandir(folder)
                       if entry.is_dir() and not is_hidden(entry.name))
        if unknown := [wnid for wnid in wnids if wnid not in labels]:
            raise InputError(f'{folder / unknown[0]}: not one of the 1,000 wnids in dataset/'
                             f'imagenet_wnids.txt (and {len(unknown) - 1} more): move it away')
        for wnid in tqdm([FLAT, *wnids], folder.name, unit='class', disable=None):
            names = [entry.name for entry in os.scandir(folder / wnid)
                     if wnid or not entry.is_dir()]
            found = [name for name in names
                     if name.endswith('.JPEG') and not is_hidden(name)]
            images += [(wnid, name) for name in sorted(found)]
            others += len(names) - len(found)
    except OSError as error:
        raise InputError(f'cannot read the folder {folder} ({error.strerror}): check --source; it '
                         'needs train/ and val/') from error
    for _, name in images:
        if ' ' in name or not name.isprintable():
            raise InputError(f'{folder}: the image name {name!r} has a space or an unprintable '
                             'character: rename it')
    if not images:
        raise InputError(f'no <wnid>/*.JPEG in {folder}: check --source')
    return images, others


def prepare_train(folder: Path, out: Path, labels: dict[str, int]) -> str:
    """Link train/ and write train.txt; returns what was found, in a line."""
    images, others = find_images(folder, labels)
    lines = [f'{wnid}/{name} {labels[wnid]}\n' for wnid, name in images if wnid]
    if not lines:
        raise InputError(f'no <wnid>/*.JPEG in {folder}: check --source')
    link_folder(folder, out / 'train')
    write_text(out / 'train.txt', ''.join(lines))
    classes, others = len({wnid for wnid, _ in images if wnid}), others + len(images) - len(lines)
    return f'train: {len(lines)} images of {classes} classes' + OTHERS.format(others) * bool(others)


def by_name(images: list[tuple[str, str]], folder: Path) -> dict[str, str]:
    """{name: wnid} of val/, sorted. An image that lies flat and in a folder is one image: a second
    run finds the first one's links."""
    found: dict[str, str] = {}
    for wnid, name in images:  # those that lie flat come first
        if found.get(name):
            raise InputError(f'{name} is in {folder / found[name]} and in {folder / wnid}: remove '
                             'the wrong one')
        found[name] = wnid
    return dict(sorted(found.items()))


def link_val(folder: Path, out: Path, images: dict[str, str]) -> None:
    if not any(images.values()):
        return link_folder(folder, out / 'val')
    if (out / 'val').is_symlink() and out.resolve() != folder.parent:
        (out / 'val').unlink()  # an earlier run's, when val was flat: the source stays unchanged
    for name, wnid in tqdm(images.items(), desc='val', unit='image', disable=None):
        link_file(folder / wnid / name, out / 'val' / name)
    return None


def find_boxes(folders: list[Path]) -> dict[str, Path]:
    """{stem: XML file} at any depth; an earlier folder goes before a later one."""
    boxes: dict[str, Path] = {}
    for folder in folders:
        for parent, _, files in os.walk(folder):
            for stem, suffix in map(os.path.splitext, files):
                if suffix == '.xml':
                    boxes.setdefault(stem, Path(parent, stem + suffix))
    return boxes


def resolve_wnid(folder_wnid: str, wnids: list[str] | None) -> tuple[str, list[str]]:
    """The class of an image, '' if nothing tells it, and what its annotations disagree about;
    wnids: of the objects in its XML, None without one."""
    conflicts = []
    if not wnids:
        conflicts.append('it has no XML' if wnids is None else 'its XML has no object')
    elif len(set(wnids)) > 1:
        conflicts.append('its XML names several classes')
    if folder_wnid and wnids and folder_wnid not in wnids:
        conflicts.append('its folder and its XML name different classes')
    wnid = folder_wnid or (wnids[0] if wnids else '')
    return wnid, conflicts if wnid else [*conflicts, 'skipped: no label']


def prepare_val(folder: Path, out: Path, boxes: Path, labels: dict[str, int]) -> list[str]:
    """Link val/ and the boxes, write val.txt and disagreements.txt; returns what was found, in
    lines."""
    found, others = find_images(folder, labels)
    images = by_name(found, folder)
    link_val(folder, out, images)
    files = find_boxes([boxes, out / 'box'])
    lines, disagreements, counts, with_boxes = [], [], Counter(), 0
    for name, folder_wnid in tqdm(images.items(), desc='box', unit='image', disable=None):
        file = files.get(name.removesuffix('.JPEG'))
        wnid, conflicts = resolve_wnid(
            folder_wnid, [wnid for wnid, _ in read_xml_objects(file)] if file else None)
        if wnid and wnid not in labels:
            raise InputError(f'{file}: its object {wnid[:80]!r} is not one of the 1,000 wnids in '
                             'dataset/imagenet_wnids.txt: get the file again')
        if file:
            link_file(file, out / 'box' / file.name)
            with_boxes += 1
        if wnid:
            lines.append(f'{name} {labels[wnid]}\n')
        disagreements += [f'{name}: {conflict}\n' for conflict in conflicts]
        counts.update(conflicts)
    if not lines:
        raise InputError(f'nothing tells the classes of the images in {folder}, which is flat and '
                         f'without XML files in {boxes}: check --boxes')
    (out / DISAGREEMENTS).unlink(missing_ok=True)  # an earlier run's
    if disagreements:
        write_text(out / DISAGREEMENTS, ''.join(disagreements))
    write_text(out / 'val.txt', ''.join(lines))
    try:
        imagenet_images(out, 'val.txt', len(labels), 'val', boxes=True)  # checks the boxes' scale
    except InputError:
        (out / 'val.txt').unlink()
        raise
    return [f'val: {len(lines)} images, {with_boxes} with boxes'
            + OTHERS.format(others) * bool(others),
            *(f'val: {count} images: {conflict} (named in {out / DISAGREEMENTS})'
              for conflict, count in counts.items())]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument('--source', type=Path, required=True, help='the ILSVRC2012 tree')
    parser.add_argument('--boxes', type=Path,
                        help='the folder of the XML files (default: SOURCE/Annotations)')
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('ImageNet2012'),
                        help='folder to fill')
    args = parser.parse_args()
    if args.boxes and not args.boxes.is_dir():
        raise InputError(f'no folder {args.boxes}: check --boxes')
    source = args.source.resolve()
    root = source / KAGGLE_FOLDER if (source / KAGGLE_FOLDER).is_dir() else source
    labels = {wnid: label for label, (_, wnid) in enumerate(read_lines(WNIDS))}
    print(f'{args.out}: ' + prepare_train(root / 'train', args.out, labels))
    for line in prepare_val(root / 'val', args.out, args.boxes or source / 'Annotations', labels):
        print(line)


if __name__ == '__main__':
    run(main)
