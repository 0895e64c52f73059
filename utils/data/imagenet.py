"""The ImageNet-1K layout of a data folder.

    train.txt, val.txt              `name label`; train names with their folder
    train/<wnid>/<name>.JPEG        val/<name>.JPEG
    box/<name>.xml                  boxes of the val images, PASCAL VOC style; optional
    segmentation/                   ground-truth masks; optional
    wnids.txt                       the classes, one per line, if they are not ImageNet-1K's
"""

from pathlib import Path

from utils.data.images import warn_of_rotations
from utils.data.lists import (
    ImageList,
    list_path,
    read_imagenet_list,
    read_wnids,
    segmentation_folder,
)

WNIDS = Path(__file__).resolve().parents[2] / 'dataset' / 'imagenet_wnids.txt'
WRONG_LABEL = frozenset({'ILSVRC2012_val_00033202.JPEG'})


def read_train_images(datapath: Path, list_name: str, classes: int) -> ImageList:
    """The images of a train list, a file in the data folder or a path. Raises InputError."""
    images = read_imagenet_list(list_path(datapath, list_name), classes, datapath / 'train',
                                segmentation=segmentation_folder(datapath))
    warn_of_rotations(images)
    return images


def read_val_images(datapath: Path, list_name: str, classes: int,
                    boxes: bool = False) -> ImageList:
    """The images of a val list; with `boxes` for localization, which leaves out the one image
    whose label is known to be wrong. Raises InputError."""
    path = list_path(datapath, list_name)
    if not boxes:
        return read_imagenet_list(path, classes, datapath / 'val')
    own = datapath / 'wnids.txt'
    wnids = read_wnids(own if own.is_file() else WNIDS)
    return read_imagenet_list(path, min(classes, len(wnids)), datapath / 'val',
                              boxes=datapath / 'box', wnids=wnids, leave_out=WRONG_LABEL,
                              segmentation=segmentation_folder(datapath))
