"""Bring the lists of the WSOL benchmark into the CUB layout that the stages read.

    python dataset/prepare_wsol.py metadata/CUB --images CUB_200_2011/images --out dataset/CUBV2

METADATA is of github.com/clovaai/wsolevaluation (Choe et al., CVPR 2020), and has
{train,val,test}/{image_ids,class_labels,localization}.txt; val is its train-fullsup. Ids are paths
below --images, those of masks below --masks.

    <out>/image                     a link to --images
    <out>/train.txt                 <id>,<label>
    <out>/val.txt, <out>/test.txt   <id>,<label>,<x0> <y0> <x1> <y1>; OpenImages: without boxes
    <out>/segmentation/<id>.png     OpenImages: the union of masks, 255; 1 where 255 is ignored
"""

import sys
from collections import defaultdict
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import numpy as np
from preparation import building, check_free, list_line, stored_mask
from tqdm import tqdm

from utils.arguments import Parser
from utils.errors import InputError, about, run
from utils.files import write_png, write_text
from utils.images import read_header, read_true_mask
from utils.lists import checked_label, checked_name, cub_images, image_name, read_lines


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
            raise InputError(f'{where}: it is not in all files there, or not below --images')
        with about(where):
            if rows and len(rows[0]) == 2:
                write_mask(masks, out, name, rows)
                rows = []
            boxes = np.array([np.array(row, float) for row in rows]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, 2:] == boxes[:, :2]  # of one pixel: its last pixels belong to it
        label = checked_label(','.join(labels[name][0]), 10**6, where)
        lines.append(list_line(name, label, boxes.tolist()))
    return lines


def write_mask(masks: Path, out: Path, name: str, rows: list[list[str]]) -> None:
    foreground, ignored = np.zeros((2, *read_header(out / 'image' / name)[0]), bool)
    for row in rows:
        for path, union in zip(row, (foreground, ignored), strict=True):
            if path:  # else there is no ignored region
                union |= read_true_mask(masks / checked_name(path, name), union.shape)[0]
    if ignored.any() and not foreground.any():  # 255 alone is foreground
        raise InputError(f'{name} has an ignored region, but no foreground: correct its masks')
    write_png((out / 'segmentation' / name).with_suffix('.png'), stored_mask(foreground, ignored))


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument('metadata', type=Path, help="a data set's folder of the metadata")
    parser.add_argument('--images', type=Path, required=True, help='the folder of the images')
    parser.add_argument('--masks', type=Path, help='the folder of the masks (default: --images)')
    parser.add_argument('--out', type=Path, required=True, help='the data folder to make')
    args = parser.parse_args()
    check_free(args.out)
    with building(args.out.absolute()) as folder:
        (folder / 'image').symlink_to(args.images.resolve(), target_is_directory=True)
        for split in ('train', 'val', 'test'):
            lines = prepare_split(args.metadata, args.masks or args.images, folder, split)
            write_text(folder / f'{split}.txt', ''.join(lines))
            cub_images(folder, f'{split}.txt', 10**6)  # checks the scale of the boxes
            print(f'{len(lines)} {split} images')


if __name__ == '__main__':
    run(main)
