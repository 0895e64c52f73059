"""Bring CUB-200-2011 into the layout that the stages read.

    python dataset/prepare_cub.py --download                        # 1.1 GB, beside --out
    python dataset/prepare_cub.py --source CUB_200_2011.tgz         # the official archive
    python dataset/prepare_cub.py --source CUB_200_2011             # or the unpacked folder
    python dataset/prepare_cub.py --source CUB_200_2011 --classes 50

    <out>/image/<class>/<name>.jpg
    <out>/segmentation/<class>/<name>.png   where the separate segmentations archive is there
    <out>/train.txt, <out>/val.txt          <class>/<name>.jpg,<label>,<xmin> <ymin> <xmax> <ymax>

Labels count from 0; the lists have the order of the official images.txt; val is the official test
split. A box is the official x, y, x + width, y + height; a few stick out of their image. With
--classes N: the first N of the 200 classes alone, in dataset/cubN.

The segmentations are published apart from the images. Where --segmentations does not name their
folder or archive, segmentations and segmentations.tgz are looked for beside the source.

The files of a folder are linked, not copied (hard links, so that the folder may go), and what is
there already is kept; an archive is unpacked beside <out> first. The lists are written last.
"""

import re
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import numpy as np
from preparation import Place, download, find_root, list_line, open_source
from tqdm import tqdm

from utils.arguments import Parser, positive_int
from utils.errors import InputError, run
from utils.files import write_text
from utils.lists import ImageList, check_files, checked_name, parse_box, read_lines

URL = 'https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz'
CHECKSUM = 'md5:97eceeb196236b17998738112f37df78'
ROOT_NAME = 'CUB_200_2011'
SEGMENTATIONS = 'segmentations'
FILES = ('images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'bounding_boxes.txt')
CLASSES = 200
CUB_NAME = re.compile(r'[^/,]+/[^/,]+\.jpg')


def read_images(root: Path, classes: int) -> tuple[ImageList, list[bool]]:
    """The images of the first classes by the official text files, and for each whether it is for
    training. Raises InputError for files that are damaged or do not fit together."""
    columns = [dict(line.partition(' ')[::2] for _, line in read_lines(root / file))
               for file in FILES]
    rows: dict[str, tuple] = {}
    for key, name in columns[0].items():
        where = f'{root}, the image {key}'
        try:
            label, is_training, box = (column[key] for column in columns[1:])
            x, y, width, height = map(float, box.split())
            from_one, is_training = int(label), {'0': False, '1': True}[is_training]
        except (KeyError, ValueError):
            raise InputError(f'{where}: {", ".join(FILES)} are damaged, or do not fit together: '
                             'get them again') from None
        if not 1 <= from_one <= CLASSES or not CUB_NAME.fullmatch(name) or name in rows:
            raise InputError(f'{where}: expected a label from 1 to {CLASSES} and another '
                             f'<class>/<name>.jpg, found {label} and {name[:80]!r}')
        if from_one <= classes:
            box = parse_box(f'{x} {y} {x + width} {y + height}', where)
            rows[checked_name(name, where)] = from_one - 1, box, is_training
    if not rows or any(column.keys() != columns[0].keys() for column in columns):
        raise InputError(f'{root}: {", ".join(FILES)} are of different images: get them again')
    labels, boxes, training = zip(*rows.values(), strict=True)
    return ImageList(np.array(list(rows)), np.array(labels), np.array(boxes)[:, None],
                     root / 'images', source=root / FILES[3]), list(training)


def place_files(source: Path, target: Path, names: list[str], place: Place) -> None:
    """Place the files of `source` in `target`. Raises InputError if one is missing; then none is
    placed."""
    missing = [name for name in names if not (source / name).is_file()]
    if missing:
        raise InputError(f'{source} lacks {len(missing)} of {len(names)} files, the first is '
                         f'{missing[0]}: unpack the archive again')
    for name in tqdm(names, desc=target.name, unit='file', disable=None):
        place(source / name, target / name)


def find_segmentations(source: Path) -> Path | None:
    """The masks in the source folder, or beside the source; None if they are not there."""
    folders = [source, source.parent] if source.is_dir() else [source.parent]
    places = [folder / name for folder in folders
              for name in (SEGMENTATIONS, f'{SEGMENTATIONS}.tgz')]
    return next((place for place in places if place.exists()), None)


def prepare(source: Path, segmentations: Path | None, out: Path, classes: int = CLASSES
            ) -> dict[str, int]:
    """Fill `out`; returns the number of images in train and val, and of masks."""
    with open_source(source, out) as (folder, place):
        root = find_root(folder, 'images.txt', ROOT_NAME)
        images, training = read_images(root, classes)
        lists = {'train.txt': '', 'val.txt': ''}
        for name, label, boxes, is_training in zip(images.names, images.labels, images.boxes,
                                                   training, strict=True):
            lists['train.txt' if is_training else 'val.txt'] += list_line(name, label, boxes)
        for file, text in lists.items():
            if (out / file).exists() and (out / file).read_text() != text:
                raise InputError(f'{out / file} is of another preparation: move it away, or give '
                                 'another --out')
        names = images.names.tolist()
        check_files(images)
        place_files(root / 'images', out / 'image', names, place)
    masks = [name.removesuffix('.jpg') + '.png' for name in names] if segmentations else []
    if segmentations:
        with open_source(segmentations, out) as (folder, place):
            root = find_root(folder, masks[0].partition('/')[0], SEGMENTATIONS)
            place_files(root, out / 'segmentation', masks, place)
    for file, text in lists.items():
        write_text(out / file, text)
    return {'train': sum(training), 'val': len(training) - sum(training), 'masks': len(masks)}


def main() -> None:
    parser = Parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--download', action='store_true', help='fetch the archive, beside --out')
    source.add_argument('--source', type=Path, help='the archive, or the unpacked folder')
    parser.add_argument('--segmentations', type=Path, help='their archive or unpacked folder')
    parser.add_argument('--classes', type=positive_int, default=CLASSES, metavar='N',
                        help='the first N classes alone')
    parser.add_argument('--out', type=Path, help='folder to fill (default: dataset/CUB_200_2011, '
                        'with --classes N dataset/cubN)')
    args = parser.parse_args()
    if not 2 <= args.classes <= CLASSES:
        raise InputError(f'--classes {args.classes}: CUB has {CLASSES}, and one cannot be learned')
    name = ROOT_NAME if args.classes == CLASSES else f'cub{args.classes}'
    out = (args.out or Path(__file__).resolve().parent / name).resolve()
    source = (download(URL, out.with_name(f'{ROOT_NAME}.tgz'), CHECKSUM) if args.download
              else args.source.resolve())
    counts = prepare(source, args.segmentations or find_segmentations(source), out, args.classes)
    print(f'{args.out or out}: {counts["train"]} training and {counts["val"]} val images, '
          f'{counts["masks"] or "no"} segmentation masks')


if __name__ == '__main__':
    run(main)
