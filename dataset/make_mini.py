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
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import cv2
import numpy as np
from draw_birds import SPECIES_LIMIT, compose, draw_background, draw_bird, make_species
from numpy.random import default_rng
from preparation import building, check_free, list_line, mask_box
from tqdm import tqdm

from utils.arguments import Parser, nonnegative_int, positive_int
from utils.errors import InputError, run
from utils.files import read_json, write_bytes, write_json, write_png, write_text
from utils.lists import WNIDS

MARKER = 'mini.json'
SPLITS = ('train', 'val')  # 0 and 1 in the random streams
SPECIES_STREAM, SCENE_STREAM, ORDER_STREAM = 2, 5, 7
BACKGROUNDS = 24  # per split
XML = """\
<annotation>
  <folder>val</folder><filename>{name}</filename>
  <source><database>ILSVRC_2012</database></source>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  <object>
    <name>{wnid}</name>
    <bndbox>
      <xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>
    </bndbox>
  </object>
</annotation>
"""


class Bird(NamedTuple):
    """A picture, uint8 H x W x 3 (BGR), and its mask, uint8 H x W, 0 and 255."""

    split: str
    label: int
    index: int
    species: str
    image: np.ndarray
    mask: np.ndarray


def draw_birds(classes: int, counts: tuple[int, int], size: int, seed: int) -> Iterator[Bird]:
    """Pictures, each from its own random stream; counts: of each class in train and in val."""
    background = lru_cache(lambda split, k: draw_background(
        2 * size, default_rng([seed, SCENE_STREAM, split, k])))
    for split, count in enumerate(counts):
        for label in range(classes):
            species = make_species(label, default_rng([seed, SPECIES_STREAM, label]))
            for index in range(count):
                rng = default_rng([seed, split, label, index])
                scene = background(split, int(rng.integers(BACKGROUNDS)))
                bird = draw_bird(species, round(1.6 * size), rng)
                yield Bird(SPLITS[split], label, index, species.name,
                           *compose(bird, scene, size, rng))


def write_jpeg(path: Path, image: np.ndarray) -> None:
    write_bytes(path, cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def write_cub(folder: Path, bird: Bird) -> str:
    """Write the files of a picture; its line in the list."""
    number = f'{bird.label + 1:03d}'
    name = f'{number}.{bird.species}/{number}_{bird.split}_{bird.index:04d}'
    write_jpeg(folder / 'image' / f'{name}.jpg', bird.image)
    write_png(folder / 'segmentation' / f'{name}.png', bird.mask)
    return list_line(f'{name}.jpg', bird.label, [mask_box(bird.mask)])


def write_imagenet(folder: Path, bird: Bird, numbers: np.ndarray) -> str:
    """The same; numbers: (classes, val images of each), those in the names of the val images."""
    wnid = WNIDS.read_text().split()[bird.label]
    name = f'{wnid}/{wnid}_{bird.index + 1}'
    if bird.split == 'val':
        name = f'ILSVRC2012_val_{numbers[bird.label, bird.index]:08d}'
        height, width = bird.mask.shape
        text = XML.format(name=name, width=width, height=height, wnid=wnid, box=mask_box(bird.mask))
        write_text(folder / 'box' / f'{name}.xml', text)
    write_jpeg(folder / bird.split / f'{name}.JPEG', bird.image)
    write_png(folder / 'segmentation' / f'{name}.png', bird.mask)
    return f'{name}.JPEG {bird.label}\n'


def write_set(folder: Path, args: argparse.Namespace) -> None:
    write, lines = write_cub, {'train': [], 'val': []}
    if args.layout == 'imagenet':
        order = default_rng([args.seed, ORDER_STREAM]).permutation(args.classes * args.val)
        write = partial(write_imagenet, numbers=order.reshape(args.classes, args.val) + 1)
    birds = draw_birds(args.classes, (args.train, args.val), args.size, args.seed)
    count = args.classes * (args.train + args.val)
    for bird in tqdm(birds, args.layout, count, unit='image', disable=None):
        lines[bird.split].append(write(folder, bird))
    lines['val'].sort()
    for split, found in lines.items():
        write_text(folder / f'{split}.txt', ''.join(found))


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
