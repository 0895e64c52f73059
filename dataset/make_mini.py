"""Write a small data set in the shape of CUB-200-2011 or ImageNet: seeded, nothing to download.

    python dataset/make_mini.py                                        # drawn birds
    python dataset/make_mini.py --layout imagenet                      # in ImageNet's layout
    python dataset/make_mini.py --cutouts DIR --backgrounds DIR        # your own photographs

Every image is one object (in the ImageNet layout a third have two) composited over a cluttered
background, so its mask is exact. --layout cub:

    <out>/image/<class>/<name>.jpg
    <out>/segmentation/<class>/<name>.png   object mask, one channel, 0 or 255
    <out>/train.txt, <out>/val.txt          <class>/<name>.jpg,<label>,<xmin> <ymin> <xmax> <ymax>

--layout imagenet, where the classes are the first of the 1,000 in imagenet_wnids.txt:

    <out>/train/<wnid>/<wnid>_<n>.JPEG, <out>/val/ILSVRC2012_val_<number>.JPEG
    <out>/box/ILSVRC2012_val_<number>.xml   the boxes of a val image, one for each object
    <out>/segmentation/<wnid>/<wnid>_<n>.png, <out>/segmentation/ILSVRC2012_val_<number>.png
    <out>/train.txt, <out>/val.txt          <wnid>/<name>.JPEG <label>, <name>.JPEG <label>

Both: <out>/mini.json, the arguments the set was made with. Labels count from 0; a box is
x, y, x + w, y + h of the bounding rectangle of the object's visible part, in pixels.

Drawn birds share one body plan and random poses; their head (colours, crest, beak) tells the
class, and their plumage, which varies from bird to bird, leans towards its colours. A classifier
can get by with the head alone, which is what makes localization from image labels hard. With
photographs, one RGBA PNG cut-out is one class. Training and validation images never share a
background.

The same arguments give the same bytes, and what an image shows does not depend on how many others
are made. A set made with other arguments is replaced once the new one is complete (it is built in
<out>.tmp); a folder without mini.json is never replaced.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

from utils.arguments import Parser, nonnegative_int, positive_int
from utils.data.imagenet import WNIDS
from utils.data.lists import read_wnids
from utils.errors import InputError, run
from utils.outputs.files import write_json

if TYPE_CHECKING:
    from mini_sources import Source

FORMAT_VERSION = 2
MARKER = 'mini.json'
DEFAULT_FOLDERS = {'cub': 'mini', 'imagenet': 'mini-imagenet'}
PAIR_SHARE = {'cub': 0, 'imagenet': 1 / 3}  # of the images have two objects
MIN_SIZE = 32
IMAGENET_CLASSES = 1000

# ---------------------------------------------------------------- replacing a set


def read_marker(folder: Path) -> dict | None:
    """What the set in a folder was made with; None if there is nothing, {} if it is unfinished."""
    if not folder.exists():
        return None
    try:
        return json.loads((folder / MARKER).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        if folder.is_dir() and not any(folder.iterdir()):
            return {}
        raise InputError(f'{folder}: exists and is not a mini set (no {MARKER}); move it away or '
                         'give another --out') from None


def discard(folder: Path) -> None:
    """Delete a set; if this is interrupted, what remains is still marked as an unfinished one."""
    write_json(folder / MARKER, {})
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    shutil.rmtree(folder)


# ---------------------------------------------------------------- command line


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--layout', choices=list(DEFAULT_FOLDERS), default='cub', help='whose shape the set has')
    add('--out', type=Path, help='folder to make; None = dataset/mini or dataset/mini-imagenet')
    add('--classes', type=positive_int, default=10, help='number of classes')
    add('--train', type=positive_int, default=40, help='training images per class')
    add('--val', type=positive_int, default=20, help='validation images per class')
    add('--size', type=positive_int, default=256, help='longer side of an image in pixels')
    add('--seed', type=nonnegative_int, default=0, help='random seed')
    add('--cutouts', type=Path, metavar='DIR',
        help='RGBA PNG cut-outs, searched recursively; needs --backgrounds')
    add('--backgrounds', type=Path, metavar='DIR',
        help='photographs without objects, searched recursively; needs --cutouts')
    args = parser.parse_args()
    args.out = args.out or Path(__file__).resolve().parent / DEFAULT_FOLDERS[args.layout]
    if args.size < MIN_SIZE:
        raise InputError(f'--size {args.size}: must be at least {MIN_SIZE}')
    if args.layout == 'imagenet' and args.classes > IMAGENET_CLASSES:
        raise InputError(f'--classes {args.classes}: ImageNet has {IMAGENET_CLASSES}')
    if (args.cutouts is None) != (args.backgrounds is None):
        given, missing = ('cutouts', 'backgrounds') if args.cutouts else ('backgrounds', 'cutouts')
        raise InputError(f'--{given} without --{missing}: give both, or neither to draw birds')
    return args


def describe(args: argparse.Namespace) -> dict:
    """The marker of a finished set: everything that decides its content."""
    content = {name: value.resolve().as_posix() if isinstance(value, Path) else value
               for name, value in vars(args).items() if name != 'out'}
    return {'format_version': FORMAT_VERSION, **content}


def open_source(args: argparse.Namespace) -> 'Source':
    from mini_sources import DrawnSource, PhotoSource

    if args.cutouts:
        return PhotoSource(args.cutouts, args.backgrounds, args.classes, args.seed)
    return DrawnSource(args.classes, args.size, args.seed)


def write_set(folder: Path, args: argparse.Namespace, source: 'Source') -> None:
    """Make all images in `folder`, in the layout asked for."""
    from mini_layouts import shuffled_numbers, write_cub, write_imagenet
    from mini_sources import make_samples
    from tqdm import tqdm

    counts = (args.train, args.val)
    samples = make_samples(source, counts, args.size, args.seed, PAIR_SHARE[args.layout])
    progress = tqdm(samples, total=args.classes * sum(counts), unit='image', disable=None)
    if args.layout == 'imagenet':
        write_imagenet(folder, progress, read_wnids(WNIDS)[:args.classes],
                       shuffled_numbers(args.classes, args.val, args.seed))
    else:
        write_cub(folder, progress, source.names)


def main() -> None:
    args = parse_args()
    if read_marker(args.out) == describe(args):
        print(f'{args.out}: already there')
        return
    source = open_source(args)
    out = args.out.resolve()
    build = out.with_name(out.name + '.tmp')
    if read_marker(build) is not None:
        discard(build)
    write_json(build / MARKER, {})
    write_set(build, args, source)
    write_json(build / MARKER, describe(args))
    if out.exists():
        discard(out)
    os.replace(build, out)
    print(f'{args.out}: {args.classes} classes, {args.train} + {args.val} images each')


if __name__ == '__main__':
    run(main)
