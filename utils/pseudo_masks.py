"""cam/test: pseudo masks of the training images, from the CAM of each one's class."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from network.weights import digest
from utils.boxes import CentreCrop
from utils.datasets import makers, stamps
from utils.distributed import is_main_process, of_all_ranks
from utils.errors import InputError
from utils.files import read_stamp, source_of, write_png
from utils.inference import ListInference, Predictor
from utils.lists import ImageList
from utils.pseudo_mask import has_foreground, pseudo_mask
from utils.results import RunFolder


def make_pseudo_masks(predict: Predictor, images: ImageList, options: Any, run: RunFolder) -> None:
    """Write a pseudo mask for each image of a list, seen whole, to options.maskpath, and
    results.json.

    Each mask has a stamp: the checkpoint, its settings, and the image's file. With options.resume,
    masks whose stamp is the one to be written are kept. Raises InputError if the masks in the
    folder are of another checkpoint or other settings, unless options.overwrite.
    """
    begin, folder = time.monotonic(), options.maskpath
    maker = f'{digest(options.snapshot)[:16]} {options.resize} {not options.no_prior}'
    masks, todo = MaskWriter(folder, images.folder, not options.no_prior, maker), range(len(images))
    if not options.overwrite and (others := makers(stamps(folder, images)) - {maker}):
        raise InputError(f'{folder} has masks of another checkpoint or other settings '
                         f'({min(others)}): give another --maskpath, or --overwrite')
    if options.resume:  # decided once, before any rank writes
        todo = of_all_ranks([index for index in todo if not masks.is_current(images.name(index))]
                            if is_main_process() else None)[0]
    view = {'image': CentreCrop(options.resize)}
    inference = ListInference(predict, images, view, masks, options)
    counts = np.array(list(inference.run('making pseudo masks', todo))).reshape(-1, 2).sum(0, int)
    made, empty = sum(of_all_ranks(counts)).tolist()
    if is_main_process():
        kept = len(images) - len(todo)
        run.write_results({'count': made + kept, 'made': made, 'empty': empty},
                          time.monotonic() - begin, made)
        print(f'wrote {made} pseudo masks to {folder}, kept {kept} that are up to date; {empty} of '
              'those written have no foreground')


@dataclass(frozen=True)
class MaskWriter:
    """A batch's CAMs -> stored masks in `folder`, of the images in `image_folder`; runs in threads
    or other processes. Returns the number of masks, and of those without foreground."""

    folder: Path
    image_folder: Path
    prior: bool
    maker: str

    def __call__(self, batch: Mapping[str, Any], outputs: dict[str, Any]) -> np.ndarray:
        _, cams = outputs['image']
        if not np.isfinite(cams).all():
            raise InputError('a CAM is not finite, so its mask would be empty: try --amp off')
        empty = 0
        for name, size, cam in zip(batch['name'], batch['size'].tolist(), cams, strict=True):
            stored = pseudo_mask(cam, tuple(size), self.prior)
            path, stamp = self._place(name)
            write_png(path, stored[..., ::-1], stamp)  # OpenCV's order of channels
            empty += not has_foreground(stored)
        return np.array([len(cams), empty])

    def is_current(self, name: str) -> bool:
        """Whether the image's mask is the one that would be written."""
        path, stamp = self._place(name)
        return read_stamp(path) == stamp

    def _place(self, name: str) -> tuple[Path, str]:
        return ((self.folder / name).with_suffix('.png'),
                f'{self.maker} {source_of(self.image_folder / name)}')
