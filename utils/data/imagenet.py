"""Where things lie in a data folder of the ImageNet-1K layout.

    train.txt, val.txt              `name label`; train names with their folder
    train/<wnid>/<name>.JPEG        val/<name>.JPEG
    box/<name>.xml                  boxes of the val images, PASCAL VOC style; may be missing
    wnids.txt                       the classes, one a line, where they are not ImageNet-1K's
"""

import argparse
from pathlib import Path

from utils.arguments import ROOT, list_path
from utils.data.lists import ImageList, read_imagenet_list, read_wnids

WRONG_LABEL = frozenset({'ILSVRC2012_val_00033202.JPEG'})


def train_images(args: argparse.Namespace) -> tuple[ImageList, Path]:
    """The images of a train list, and their folder."""
    return read_imagenet_list(list_path(args), args.clsnum), args.datapath / 'train'


def val_images(args: argparse.Namespace) -> tuple[ImageList, Path]:
    """The images of a val list, and their folder."""
    return read_imagenet_list(list_path(args), args.clsnum), args.datapath / 'val'


def boxed_val_images(args: argparse.Namespace) -> tuple[ImageList, Path]:
    """The images of a val list with their boxes, and their folder; the image whose label is
    known to be wrong is left out, as in the paper's localization."""
    own = args.datapath / 'wnids.txt'
    wnids = read_wnids(own if own.is_file() else ROOT / 'dataset' / 'imagenet_wnids.txt')
    images = read_imagenet_list(list_path(args), min(args.clsnum, len(wnids)),
                                args.datapath / 'box', wnids, WRONG_LABEL)
    return images, args.datapath / 'val'
