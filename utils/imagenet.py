"""Image lists in the ImageNet-1K layout of a data folder:

    train.txt, val.txt              `name label`; train names with their folder
    train/<wnid>/<name>.JPEG        val/<name>.JPEG
    box/<name>.xml                  boxes of the val images, PASCAL VOC style; optional
    segmentation/                   ground-truth masks; optional
    wnids.txt                       the classes, one per line, if they are not ImageNet-1K's
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from defusedxml.ElementTree import parse as parse_xml

from utils.errors import about
from utils.lists import ImageList, checked, list_path, parse_box, read_lines, read_list

WNIDS = Path(__file__).resolve().parents[1] / 'dataset' / 'imagenet_wnids.txt'
WRONG_LABEL = 'ILSVRC2012_val_00033202.JPEG'  # left out where images are localized


def imagenet_images(datapath: Path, name: str, classes: int, split: str = 'train',
                    boxes: bool = False) -> ImageList:
    """The images of a list in the ImageNet layout; `split`: their folder. With `boxes` (for
    localization) those of the XML files, without the one image whose label is known to be wrong.
    Raises InputError as `utils.lists.cub_images`."""
    path, own, folder = list_path(datapath, name), datapath / 'wnids.txt', datapath / 'box'
    wnids = [line for _, line in read_lines(own if own.is_file() else WNIDS)] if boxes else []
    names, labels, xml = read_list(path, min(classes, len(wnids)) if boxes else classes,
                                   'name label', lambda line: (
                                       [line] if ',' in line else line.rsplit(maxsplit=1)))
    if boxes:
        right = names != WRONG_LABEL
        names, labels = names[right], labels[right]
        if folder.is_dir():
            xml = XmlBoxes(names, [wnids[label] for label in labels], folder)
    return checked(ImageList(names, labels, xml, datapath / split, source=path), datapath)


@dataclass(frozen=True)
class XmlBoxes(Sequence):
    """The boxes of each image of a list, (K, 4) float64, read on access; an image without an XML
    file has none. Of the objects in a file, those with the wnid of the image's label count."""

    names: Sequence[str]
    wnids: Sequence[str]
    folder: Path

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        path = self.folder / Path(self.names[index]).with_suffix('.xml').name
        objects = read_xml_objects(path) if path.exists() else []
        boxes = [box for wnid, box in objects if wnid == self.wnids[index]]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def read_xml_objects(path: Path) -> list[tuple[str, tuple[float, ...]]]:
    """(wnid, box) of the objects in a PASCAL VOC style XML file. Raises InputError if the file is
    missing, is not such XML, has a DTD, or has a box without area."""
    with about(f'{path} is not a valid PASCAL VOC XML file'):
        objects = parse_xml(path, forbid_dtd=True).getroot().findall('object')
    return [(found.findtext('name', '').strip(), parse_box(' '.join(
        found.findtext(f'bndbox/{side}', '') for side in ('xmin', 'ymin', 'xmax', 'ymax')),
        str(path))) for found in objects]
