"""Bring ILSVRC2012 (ImageNet-1K, CLS-LOC) into the layout that the stages read.

    python dataset/prepare_imagenet.py --source ILSVRC
    python dataset/prepare_imagenet.py --source imagenet --boxes ILSVRC2012_bbox_val_v3/val

The source has train/<wnid>/*.JPEG and val/, flat or in folders named by wnid (both may lie in its
Data/CLS-LOC/), and the XML files of the val boxes, at any depth below its Annotations/ or --boxes.

    <out>/train/, <out>/val/                links to the source's images; val is flat
    <out>/box/<name>.xml                    the boxes of a val image
    <out>/train.txt, <out>/val.txt          <wnid>/<name>.JPEG <label>, <name>.JPEG <label>

The label is the index of the wnid in imagenet_wnids.txt. The wnid of a val image comes from its
folder, else from the first object of its XML; an image that has neither is skipped. --out may be
the source itself. Existing files are kept, so that the same command continues an interrupted run.
"""

import os
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

from preparation import is_hidden, link_file
from tqdm import tqdm

from utils.arguments import Parser
from utils.errors import InputError, run
from utils.files import write_text
from utils.imagenet import WNIDS, read_xml_objects
from utils.lists import read_lines


def find_images(folder: Path, labels: dict[str, int]) -> list[tuple[str, str]]:
    """Sorted (wnid, name) of the images in `folder` itself (wnid '') and in its class folders."""
    wnids = sorted(entry.name for entry in os.scandir(folder)
                   if entry.is_dir() and not is_hidden(entry.name))
    if unknown := [wnid for wnid in wnids if wnid not in labels]:
        raise InputError(f'{folder / unknown[0]}: not one of the 1,000 wnids in dataset/'
                         'imagenet_wnids.txt: move it away')
    return [(wnid, name) for wnid in tqdm(['', *wnids], folder.name, unit='class', disable=None)
            for name in sorted(os.listdir(folder / wnid))
            if name.endswith('.JPEG') and not is_hidden(name)]


def prepare_train(folder: Path, out: Path, labels: dict[str, int]) -> str:
    """Link train/ and write train.txt; returns what it has, in a line."""
    images = [(wnid, name) for wnid, name in find_images(folder, labels) if wnid]
    if not images:
        raise InputError(f'{folder} has no <wnid>/*.JPEG: check the folder')
    target = out / 'train'
    if not target.exists():
        out.mkdir(parents=True, exist_ok=True)
        target.symlink_to(folder, target_is_directory=True)
    write_text(out / 'train.txt', ''.join(
        f'{wnid}/{name} {labels[wnid]}\n' for wnid, name in images))
    return f'train: {len(images)} images of {len(dict(images))} classes'


def prepare_val(folder: Path, out: Path, boxes: Path, labels: dict[str, int]) -> str:
    """Link the images and the XML files, and write val.txt; returns what was found, in a line."""
    images = {name: wnid for wnid, name in find_images(folder, labels)}  # class folders go first
    files = {file.stem: file for where in (out / 'box', boxes) for file in where.rglob('*.xml')}
    lines, with_boxes = [], 0
    for name, wnid in tqdm(sorted(images.items()), 'val', unit='image', disable=None):
        link_file(folder / wnid / name, out / 'val' / name)
        if file := files.get(name.removesuffix('.JPEG')):
            objects = read_xml_objects(file)
            wnid = wnid or (objects[0][0] if objects else '')
            link_file(file, out / 'box' / file.name)
            with_boxes += 1
        if wnid in labels:
            lines.append(f'{name} {labels[wnid]}\n')
    if not lines:
        raise InputError(f'{folder} is flat and {boxes} without its XML files: check --boxes')
    write_text(out / 'val.txt', ''.join(lines))
    return (f'val: {len(lines)} images, {with_boxes} with boxes; {len(images) - len(lines)} are '
            'left out, as nothing tells their classes')


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--source', type=Path, required=True, help='the ILSVRC2012 tree')
    add('--boxes', type=Path, help='the folder of the XML files (default: SOURCE/Annotations)')
    add('--out', type=Path, default=Path(__file__).with_name('ImageNet2012'), help='folder to fill')
    args = parser.parse_args()
    source = args.source.resolve()
    kaggle = source / 'Data' / 'CLS-LOC'
    root = kaggle if kaggle.is_dir() else source
    labels = {wnid: label for label, (_, wnid) in enumerate(read_lines(WNIDS))}
    print(f'{args.out}: ' + prepare_train(root / 'train', args.out, labels))
    print(prepare_val(root / 'val', args.out, args.boxes or source / 'Annotations', labels))


if __name__ == '__main__':
    run(main)
