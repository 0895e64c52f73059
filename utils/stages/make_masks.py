"""cam/test: pseudo masks of the training images, from the CAM of each one's class."""

import time
from collections.abc import Iterable
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
from torch import Tensor

from network.mffnet import CamNet
from utils.data.datasets import EvalImages
from utils.data.images import read_stored_mask
from utils.data.lists import ImageList
from utils.engine.distributed import any_rank, barrier, gather_to_main, is_main_process
from utils.engine.inference import Inference, labels_of
from utils.engine.interruption import Interruption
from utils.engine.transfer import Transfer
from utils.errors import InputError
from utils.localization.batched_pseudo_mask import pseudo_masks
from utils.localization.pseudo_mask import has_foreground, pseudo_mask
from utils.outputs.bad_images import BadImages
from utils.outputs.files import remove_temporary_files, write_whole
from utils.outputs.results import RunFolder
from utils.stages.show import write_cam_sheet

STRATEGY = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)


def make_pseudo_masks(model: CamNet, images: ImageList, transform: A.Compose, mask_folder: Path,
                      inference: Inference, run: RunFolder, resume: bool = False,
                      show: int = 0) -> None:
    """Write a pseudo mask for each image of a list to `mask_folder`, and results.json.

    With `resume`, parts of the list whose masks are all there are left as they are. The first
    `show` images are drawn to show.png.
    """
    begin = time.monotonic()
    if is_main_process():
        remove_temporary_files(mask_folder)
    barrier()
    predict = inference.predictor(model, method='class_cams')

    def write_masks(batch: dict) -> np.ndarray:
        """Write a batch's masks; (number of masks, of those without foreground)."""
        _, cams = predict(batch['image'], labels_of(images, batch))
        sizes, empty = list(map(tuple, batch['size'].tolist())), 0
        for index, stored in zip(batch['index'].tolist(),
                                 masks_of(cams, sizes, predict.transfer), strict=True):
            write_mask(images.mask_path(mask_folder, index), stored)
            empty += not has_foreground(stored)
        return np.array([len(cams), empty])

    def count_masks(indices: range) -> np.ndarray | None:
        """What `write_masks` would return, where all masks of a part are there."""
        try:
            stored = [read_stored_mask(images.mask_path(mask_folder, index)) for index in indices]
        except InputError:
            return None
        return np.array([len(stored), len(stored) - sum(map(has_foreground, stored))])

    bad = BadImages(images, run.file('bad_images.txt'))
    counts = np.zeros(2, int)
    with Interruption() as interruption:
        for written in inference.map(EvalImages(images, image=transform), write_masks,
                                     'making pseudo masks', bad, count_masks if resume else None):
            counts += written
            if interruption.received:
                break
    stopped = any_rank(interruption.received)
    counts_of_ranks, bad_of_ranks = gather_to_main(counts), gather_to_main(bad.names)
    if not is_main_process():
        return
    if inference.options.skip_bad:
        bad.write(bad_of_ranks)
    count, empty = sum(counts_of_ranks).tolist()
    if stopped:
        print(f'stopped after {count} of {len(images)} images, whose masks are whole: '
              'continue with the same command and --resume')
        return
    run.write_results({'count': count, 'empty': empty}, time.monotonic() - begin, count)
    write_cam_sheet(run.file('show.png'), predict, images, transform, show)
    print(f'wrote {count} pseudo masks to {mask_folder}'
          + (f'; {empty} of them have no foreground' if empty else '') + bad.summary())


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
    # OpenCV's own choice, runs alone, makes files of 1.4 times the size in as much time.
    content = cv2.imencode('.png', stored, STRATEGY)[1]
    write_whole(path, lambda file: file.write(content))
