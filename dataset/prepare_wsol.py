"""Bring the lists of the WSOL benchmark into the CUB layout that the stages read.

    python dataset/prepare_wsol.py metadata/CUB --images CUB_200_2011/images --out dataset/CUBV2

METADATA is a folder of github.com/clovaai/wsolevaluation (Choe et al., CVPR 2020), with
{train,val,test}/{image_ids,class_labels,localization}.txt; val is its train-fullsup. The ids in
image_ids.txt are paths below --images, those of masks in localization.txt below --masks.

    <out>/image                     a link to --images
    <out>/train.txt                 <id>,<label>
    <out>/val.txt, <out>/test.txt   <id>,<label>,<x0> <y0> <x1> <y1>; OpenImages: without boxes
    <out>/segmentation/<id>.png     OpenImages: the union of an image's masks, 0 and 255; where it
                                    has an ignored region 0, 1 (foreground) and 255 (ignored)
"""

import sys
from collections import defaultdict
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import numpy as np
from preparation import building, check_free, list_line, stored_mask
from tqdm import tqdm

from utils.arguments import Parser
from utils.errors import InputError, run
from utils.files import write_png, write_text
from utils.images import read_header, read_true_mask
from utils.lists import checked_label, checked_name, cub_images, image_name, parse_box, read_lines


def read_fields(path: Path) -> dict[str, list[list[str]]]:
    """{id: the other fields of each of its lines}."""
    result = defaultdict(list)
    for number, line in read_lines(path):
        name, *fields = line.split(',')
        result[image_name(name, f'{path}, line {number}')].append(fields)
    return result


def prepare_split(metadata: Path, masks: Path, out: Path, split: str) -> list[str]:
    """The lines of the list of a split, whose masks are written."""
    source, lines = metadata / split, []
    labels = read_fields(source / 'class_labels.txt')
    truth = read_fields(source / 'localization.txt') if split != 'train' else {}
    for name in tqdm(read_fields(source / 'image_ids.txt'), split, unit='image', disable=None):
        where, rows = f'{source}, {name}', truth.get(name, [])
        if name not in labels or bool(rows) != bool(truth) or not (out / 'image' / name).is_file():
            raise InputError(f'{where}: it is not in all files there, or not below --images: check '
                             'that folder, or get the metadata again')
        if rows and len(rows[0]) == 2:
            write_mask(masks, out, name, rows)
            rows = []
        boxes = [parse_box(' '.join(row), where) for row in rows]
        label = checked_label(','.join(labels[name][0]), 10**6, where)
        lines.append(list_line(name, label, boxes))
    return lines


def write_mask(masks: Path, out: Path, name: str, rows: list[list[str]]) -> None:
    """Write the mask of an image; rows: (mask, ignored region or nothing) of each object."""
    size = read_header(out / 'image' / name)[0]
    foreground, ignored = np.zeros(size, bool), np.zeros(size, bool)
    for row in rows:
        for path, union in zip(row, (foreground, ignored), strict=True):
            if path:
                union |= read_true_mask(masks / checked_name(path, name), size)[0]
    write_png((out / 'segmentation' / name).with_suffix('.png'), stored_mask(foreground, ignored))


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('metadata', type=Path, help="a data set's folder of the benchmark's metadata")
    add('--images', type=Path, required=True, metavar='DIR', help='the folder of the images')
    add('--masks', type=Path, metavar='DIR', help='the folder of the masks (default: --images)')
    add('--out', type=Path, required=True, metavar='DIR', help='the data folder to make')
    args = parser.parse_args()
    check_free(args.out)
    with building(args.out.absolute()) as folder:
        (folder / 'image').symlink_to(args.images.resolve(), target_is_directory=True)
        counts = []
        for split in ('train', 'val', 'test'):
            lines = prepare_split(args.metadata, args.masks or args.images, folder, split)
            write_text(folder / f'{split}.txt', ''.join(lines))
            cub_images(folder, f'{split}.txt', 10**6)  # checks the scale of the boxes
            counts.append(f'{len(lines)} {split} images')
    print(f'{args.out}: {", ".join(counts)}')


if __name__ == '__main__':
    run(main)
