"""Bring CUB-200-2011 into the layout that the stages read.

    python dataset/prepare_cub.py --download                        # 1.1 GB, beside --out
    python dataset/prepare_cub.py --source CUB_200_2011.tgz         # or the unpacked folder
    python dataset/prepare_cub.py --source CUB_200_2011 --classes 50

    <out>/image/<class>/<name>.jpg
    <out>/segmentation/<class>/<name>.png   where the separate segmentations archive is there
    <out>/train.txt, <out>/val.txt          <class>/<name>.jpg,<label>,<xmin> <ymin> <xmax> <ymax>

Labels count from 0; the lists have the order of the official images.txt; val is the official test
split. A box is the official x, y, x + width, y + height; a few stick out of their image. With
--classes N: the first N of the 200 classes alone, in dataset/cubN.

The segmentations are published apart from the images. Where --segmentations does not name their
folder or archive, segmentations and segmentations.tgz are looked for beside the source. The files
are linked, and what is there already is kept. The lists are written last.
"""

import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

from preparation import add_source, download, link_file, list_line, open_source
from tqdm import tqdm

from utils.arguments import Parser, positive_int
from utils.errors import InputError, about, run
from utils.files import write_text
from utils.lists import checked_label, checked_name, parse_box, read_lines

URL = 'https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz'
CHECKSUM = 'md5:97eceeb196236b17998738112f37df78'
ROOT_NAME = 'CUB_200_2011'
FILES = ('images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'bounding_boxes.txt')
SPLITS = {'1': 'train', '0': 'val'}  # by train_test_split.txt
CLASSES = 200


def read_splits(root: Path, classes: int) -> dict[str, dict[str, str]]:
    """{split: {image: its line in the list}} of the first classes, by the official text files."""
    splits = {'train': {}, 'val': {}}
    with about(f'{root}: its text files are damaged, or of different images: get them again'):
        columns = [dict(line.split(maxsplit=1) for _, line in read_lines(root / file))
                   for file in FILES]
        for key in columns[0] | columns[1] | columns[2] | columns[3]:
            name, label, part, box = (column[key] for column in columns)
            where = f'{root}, the image {key}'
            label = checked_label(str(int(label) - 1), CLASSES, where)
            x, y, width, height = map(float, box.split())
            box = parse_box(f'{x} {y} {x + width} {y + height}', where)
            if label < classes:
                splits[SPLITS[part]][checked_name(name, where)] = list_line(name, label, [box])
    return splits


def prepare(source: Path, segmentations: Path | None, out: Path, classes: int) -> str:
    """Fill `out`; returns what is in it, in a line."""
    with open_source(source, out, 'images.txt') as root:
        splits = read_splits(root, classes)
        names = [name for lines in splits.values() for name in lines]
        for name in tqdm(names, 'image', unit='file', disable=None):
            link_file(root / 'images' / name, out / 'image' / name)
    masks = [name.removesuffix('.jpg') + '.png' for name in names] if segmentations else []
    if segmentations:
        with open_source(segmentations, out, masks[0].partition('/')[0]) as root:
            for name in tqdm(masks, 'segmentation', unit='file', disable=None):
                link_file(root / name, out / 'segmentation' / name)
    for split, lines in splits.items():
        write_text(out / f'{split}.txt', ''.join(lines.values()))
    return (f'{len(splits["train"])} training and {len(splits["val"])} val images, '
            f'{len(masks) or "no"} segmentation masks')


def main() -> None:
    parser = Parser(__doc__)
    add_source(parser)
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
    beside = [source.with_name(name) for name in ('segmentations', 'segmentations.tgz')]
    masks = args.segmentations or next(filter(Path.exists, beside), None)
    print(f'{out}: ' + prepare(source, masks, out, args.classes))


if __name__ == '__main__':
    run(main)
