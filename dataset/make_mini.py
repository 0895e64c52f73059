"""Make a small data set in the layout of CUB-200-2011 or ImageNet: seeded, nothing to download.

    python dataset/make_mini.py                         # dataset/mini
    python dataset/make_mini.py --layout imagenet       # dataset/mini-imagenet

Every image is a drawn bird in front of a landscape, with its exact mask. --layout cub:

    <out>/image/<class>/<name>.jpg
    <out>/segmentation/<class>/<name>.png   the bird's mask, 0 and 255
    <out>/train.txt, <out>/val.txt          <class>/<name>.jpg,<label>,<xmin> <ymin> <xmax> <ymax>

--layout imagenet, with the first of the 1,000 classes in imagenet_wnids.txt:

    <out>/train/<wnid>/<wnid>_<n>.JPEG, <out>/val/ILSVRC2012_val_<number>.JPEG
    <out>/box/<name>.xml                    the box of a val image
    <out>/segmentation/[<wnid>/]<name>.png  masks
    <out>/train.txt, <out>/val.txt          <wnid>/<name>.JPEG <label>, <name>.JPEG <label>

<out>/mini.json has the arguments, which decide about all files. A set of other arguments is
replaced once the new one is complete; a folder without mini.json is never replaced.
"""

import argparse
import shutil
import sys
from functools import lru_cache
from itertools import product
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import cv2
from draw_birds import SPECIES_LIMIT, compose, draw_background, draw_bird, make_species
from numpy.random import default_rng
from preparation import building, check_free, list_line, mask_box
from tqdm import tqdm

from utils.arguments import Parser, nonnegative_int, positive_int
from utils.errors import InputError, run
from utils.files import read_json, write_bytes, write_json, write_png, write_text
from utils.imagenet import WNIDS

MARKER = 'mini.json'
SPECIES_STREAM, SCENE_STREAM, ORDER_STREAM = 2, 5, 7  # of the pictures: 0 train, 1 val
BACKGROUNDS = 24  # per split
XML = """\
<annotation><object><name>{wnid}</name><bndbox>
  <xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>
</bndbox></object></annotation>
"""


def write_set(folder: Path, args: argparse.Namespace) -> None:
    """Draw the pictures, each from its own random stream, and write the files of the layout."""
    wnids = WNIDS.read_text().split()
    numbers = default_rng([args.seed, ORDER_STREAM]).permutation(args.classes * args.val) + 1
    background = lru_cache(lambda stream, k: draw_background(
        2 * args.size, default_rng([args.seed, SCENE_STREAM, stream, k])))
    for stream, (split, count) in enumerate({'train': args.train, 'val': args.val}.items()):
        lines, pictures = [], list(product(range(args.classes), range(count)))
        for label, index in tqdm(pictures, split, unit='image', disable=None):
            species = make_species(label, default_rng([args.seed, SPECIES_STREAM, label]))
            rng = default_rng([args.seed, stream, label, index])
            scene = background(stream, int(rng.integers(BACKGROUNDS)))
            bird = draw_bird(species, round(1.6 * args.size), rng)
            image, mask = compose(bird, scene, args.size, rng)
            if args.layout == 'cub':
                name = f'{label + 1:03d}.{species.name}/{label + 1:03d}_{split}_{index:04d}'
                path, line = f'image/{name}.jpg', list_line(f'{name}.jpg', label, [mask_box(mask)])
            else:
                name = f'{wnids[label]}/{wnids[label]}_{index + 1}'
                if split == 'val':
                    name = f'ILSVRC2012_val_{numbers[label * count + index]:08d}'
                    write_text(folder / f'box/{name}.xml',
                               XML.format(wnid=wnids[label], box=mask_box(mask)))
                path, line = f'{split}/{name}.JPEG', f'{name}.JPEG {label}\n'
            jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
            write_bytes(folder / path, jpeg)
            write_png(folder / f'segmentation/{name}.png', mask)
            lines.append(line)
        write_text(folder / f'{split}.txt', ''.join(sorted(lines) if split == 'val' else lines))


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--layout', choices=['cub', 'imagenet'], default='cub', help='whose layout the set has')
    add('--out', type=Path, help='folder to make (default: dataset/mini or dataset/mini-imagenet)')
    add('--classes', type=positive_int, default=10, help='number of classes')
    add('--train', type=positive_int, default=40, help='training images per class')
    add('--val', type=positive_int, default=20, help='validation images per class')
    add('--size', type=positive_int, default=256, help='longer side of an image in pixels')
    add('--seed', type=nonnegative_int, default=0, help='random seed')
    args = parser.parse_args()
    if args.size < 32 or args.classes > SPECIES_LIMIT:
        raise InputError(f'--size {args.size} --classes {args.classes}: at least 32 pixels, and at '
                         f'most {SPECIES_LIMIT} classes, the birds that can be drawn')
    marker = {'drawn': True, **vars(args)}
    default = 'mini' if args.layout == 'cub' else 'mini-imagenet'
    out = (marker.pop('out') or Path(__file__).resolve().parent / default).resolve()
    if read_json(out / MARKER) == marker:
        print(f'{out}: already there')
        return
    if not (out / MARKER).is_file():
        check_free(out)
    with building(out) as folder:
        write_set(folder, args)
        write_json(folder / MARKER, marker)
        shutil.rmtree(out, ignore_errors=True)
    print(f'{out}: {args.classes} classes, {args.train} + {args.val} images each')


if __name__ == '__main__':
    run(main)
