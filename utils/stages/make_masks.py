"""cam/test: pseudo masks of the training images, from the CAM of each one's class."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from network.mffnet import CamNet
from utils.data.datasets import EvalImages
from utils.data.images import read_stored_mask
from utils.data.lists import ImageList
from utils.engine.distributed import any_rank, barrier, is_main_process
from utils.engine.inference import Inference, Predictor, labels_of
from utils.engine.interruption import Interruption
from utils.engine.transfer import Transfer
from utils.errors import InputError
from utils.localization.batched_pseudo_mask import pseudo_masks
from utils.localization.boxes import CentreCrop
from utils.localization.pseudo_mask import has_foreground, pseudo_mask
from utils.outputs.bad_images import BadImages
from utils.outputs.files import encode_png, remove_temporary_files, write_bytes
from utils.outputs.results import RunFolder
from utils.stages.mask_record import MaskRecord
from utils.stages.show import write_cam_sheet


def make_pseudo_masks(model: CamNet, images: ImageList, side: int, mask_folder: Path,
                      inference: Inference, run: RunFolder, resume: bool = False,
                      show: int = 0, record: MaskRecord | None = None) -> None:
    """Write a pseudo mask for each image of a list to `mask_folder`, and results.json.

    The network sees whole images, resized to side x side. With `resume`, chunks of the list whose
    masks are all there, made since `record.started`, are left as they are. `show` images of the
    list are drawn to show.png.
    """
    begin, crop = time.monotonic(), CentreCrop(side)
    if is_main_process():
        remove_temporary_files(mask_folder)
    barrier()
    if record:
        record.write(mask_folder)
    masks = MaskFolder(mask_folder, images, inference.predictor(model, method='class_cams'),
                       record.started if record else 0)
    bad = BadImages(images, run.file('bad_images.txt'))
    counts = np.zeros(2, int)
    with Interruption() as interruption:
        for written in inference.map(EvalImages(images, image=crop), masks.write,
                                     'making pseudo masks', bad, masks.count if resume else None):
            counts += written
            if interruption.received:
                break
    stopped = any_rank(interruption.received)
    counts_of_ranks = inference.gather(counts, bad)
    if not counts_of_ranks:
        return
    count, empty = sum(counts_of_ranks).tolist()
    if stopped and count + len(bad.names) < len(images):
        print(f'stopped after {count} of {len(images)} images, whose masks are complete: '
              'continue with the same command and --resume')
        return
    if record:
        record.write(mask_folder, complete=images)
    run.write_results({'count': count, 'empty': empty}, time.monotonic() - begin, count)
    write_cam_sheet(run.file('show.png'), masks.predict, images, crop, show)
    print(f'wrote {count} pseudo masks to {mask_folder}'
          + (f'; {empty} of them have no foreground' if empty else '') + bad.summary())


@dataclass(frozen=True)
class MaskFolder:
    """The folder of the pseudo masks of a list, and the network that makes them; those from before
    `since`, in seconds, are another network's.

    Both methods return the number of masks, and of those without foreground, (2,) int.
    """

    path: Path
    images: ImageList
    predict: Predictor
    since: float = 0

    def write(self, batch: dict) -> np.ndarray:
        """Make and write a batch's masks. Raises InputError if a CAM is not finite."""
        _, cams = self.predict(batch['image'], labels_of(self.images, batch))
        if not self.predict.transfer.download(cams.isfinite().all()):
            raise InputError('a CAM is not finite, so its mask would be empty: stopped; try '
                             '--amp off')
        sizes, empty = list(map(tuple, batch['size'].tolist())), 0
        for index, stored in zip(batch['index'].tolist(),
                                 masks_of(cams, sizes, self.predict.transfer), strict=True):
            write_mask(self.images.mask_path(self.path, index), stored)
            empty += not has_foreground(stored)
        return np.array([len(cams), empty])

    def count(self, indices: range) -> np.ndarray | None:
        """Count the masks of a chunk of the list; None if one of them is missing or too old."""
        paths = [self.images.mask_path(self.path, index) for index in indices]
        try:
            stored = [read_stored_mask(path) for path in paths]
        except InputError:
            return None
        if any(path.stat().st_mtime < self.since for path in paths):
            return None
        return np.array([len(stored), len(stored) - sum(map(has_foreground, stored))])


def masks_of(cams: Tensor, sizes: list[tuple[int, int]], transfer: Transfer
             ) -> Iterable[np.ndarray]:
    """The stored masks of a batch of CAMs, N x h x w, for images of `sizes` = (H, W): made image
    by image on the CPU, and as a batch on other devices."""
    if transfer.device.type == 'cpu':
        return map(pseudo_mask, cams.numpy(), sizes)
    return pseudo_masks(cams, sizes, transfer)


def write_mask(path: Path, stored: np.ndarray) -> None:
    """Write a stored mask, uint8 H x W x 3, as PNG. Its first channel is the first in OpenCV's
    order, blue."""
    write_bytes(path, encode_png(stored))
