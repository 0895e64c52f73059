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

Choose the threshold on val: cub200-seg/test.py --datapath <out> --select val.txt --list test.txt
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import numpy as np
from preparation import building, check_free, link_folder, list_line, stored_mask

from utils.arguments import Parser
from utils.errors import InputError, run
from utils.files import write_png, write_text
from utils.images import read_header, read_true_mask
from utils.lists import checked_label, checked_name, cub_images, image_name, parse_box, read_lines


def read_fields(path: Path, counts: tuple[int, ...]) -> dict[str, list[list[str]]]:
    """{id: the other fields of each of its lines}, as many as one of `counts`."""
    result: dict[str, list[list[str]]] = {}
    for number, line in read_lines(path):
        name, *fields = line.split(',')
        if len(fields) not in counts:
            raise InputError(f'{path}, line {number}: expected {" or ".join(map(str, counts))} '
                             f'fields after the id, found {line[:80]!r}: get the metadata again')
        result.setdefault(image_name(name, f'{path}, line {number}'), []).append(fields)
    return result


def prepare_split(metadata: Path, masks: Path, out: Path, split: str) -> list[str]:
    """The lines of the list of a split, whose masks are written."""
    source, lines, with_masks = metadata / split, [], {}
    labels = read_fields(source / 'class_labels.txt', (1,))
    truth = read_fields(source / 'localization.txt', (2, 4)) if split != 'train' else labels
    for name in read_fields(source / 'image_ids.txt', (0,)):
        where, boxes = f'{source}, {name}', []
        if name not in labels or name not in truth or not (out / 'image' / name).is_file():
            raise InputError(f'{where}: it is not in all files there, or not below --images: check '
                             'that folder, or get the metadata again')
        if len(truth[name][0]) == 4:
            boxes = [parse_box(' '.join(box), where) for box in truth[name]]
        elif truth is not labels:
            with_masks[name] = truth[name]
        lines.append(list_line(name, checked_label(labels[name][0][0], 10**6, where), boxes))
    with ThreadPoolExecutor() as pool:
        list(pool.map(partial(write_mask, masks, out), *zip(*with_masks.items(), strict=True)))
    return lines


def write_mask(masks: Path, out: Path, name: str, rows: list[list[str]]) -> None:
    """Write the mask of an image; rows: (mask, ignored region or nothing) of each object."""
    size = read_header(out / 'image' / name)[0]
    foreground, ignored = (
        sum((read_true_mask(masks / checked_name(path, name), size)[0] for path in {*paths} - {''}),
            np.zeros(size, bool)) for paths in zip(*rows, strict=True))
    path = (out / 'segmentation' / name).with_suffix('.png')
    write_png(path, stored_mask(foreground, ignored))


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
        link_folder(args.images, folder / 'image')
        lists = {split: prepare_split(args.metadata, args.masks or args.images, folder, split)
                 for split in ('train', 'val', 'test')}
        classes = max(int(line.split(',')[1]) for lines in lists.values() for line in lines) + 1
        for split, lines in lists.items():
            write_text(folder / f'{split}.txt', ''.join(lines))
            cub_images(folder, f'{split}.txt', classes)  # checks the scale of the boxes
    print(f'{args.out}: {classes} classes, '
          + ', '.join(f'{len(lines)} {split} images' for split, lines in lists.items()))


if __name__ == '__main__':
    run(main)
