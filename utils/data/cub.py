"""The CUB-200-2011 layout of a data folder.

    train.txt, val.txt              `name,label,xmin ymin xmax ymax`
    image/<class>/<name>.jpg
    segmentation/<class>/<name>.png ground-truth masks; optional
"""

from pathlib import Path

from utils.data.images import warn_of_rotations
from utils.data.lists import ImageList, list_path, read_cub_list, segmentation_folder


def read_images(datapath: Path, list_name: str, classes: int) -> ImageList:
    """The images of a list, a file in the data folder or a path. Raises InputError."""
    images = read_cub_list(list_path(datapath, list_name), classes, datapath / 'image',
                           segmentation_folder(datapath))
    warn_of_rotations(images)
    return images
