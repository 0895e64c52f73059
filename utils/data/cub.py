"""Where things lie in a data folder of the CUB-200-2011 layout.

    train.txt, val.txt              `name,label,xmin ymin xmax ymax`
    image/<class>/<name>.jpg
    segmentation/<class>/<name>.png ground-truth masks; may be missing
"""

import argparse
from pathlib import Path

from utils.arguments import list_path
from utils.data.lists import ImageList, read_cub_list


def cub_images(args: argparse.Namespace) -> tuple[ImageList, Path]:
    """The images of a list, and their folder."""
    return read_cub_list(list_path(args), args.clsnum), args.datapath / 'image'
