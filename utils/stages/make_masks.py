"""cam/test: pseudo masks of the training images, from the CAM of each one's class."""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from network import CamNet
from utils.data.datasets import TestImages, mask_path
from utils.data.images import read_stored_mask
from utils.data.lists import ImageList
from utils.engine.distributed import any_process, gather, is_main
from utils.engine.inference import Predictor, labels_of, process
from utils.engine.interruption import Interruption
from utils.errors import InputError
from utils.localization.pseudo_mask import pseudo_mask, seg_target
from utils.outputs.bad_images import BadImages
from utils.outputs.files import write_whole
from utils.outputs.results import write_results


def make_pseudo_masks(args: argparse.Namespace, model: CamNet, images: ImageList,
                      folder: Path) -> None:
    """Write a pseudo mask for each image of a list in `folder` to `args.maskpath`."""
    if args.crop:
        raise InputError(f'--crop {args.crop}: pseudo masks are of whole images; leave it out')
    begin = time.monotonic()
    predictor = Predictor(model, args, method='class_cams')
    dataset = TestImages(images, folder, args.resize, args.crop)

    def write_masks(batch: dict) -> np.ndarray:
        """Write a batch's masks; (written, without foreground)."""
        _, cams = predictor(batch['image'], labels_of(images, batch))
        empty = 0
        for index, size, cam in zip(batch['index'].tolist(), batch['size'].tolist(),
                                    cams.cpu().numpy(), strict=True):
            stored = pseudo_mask(cam, tuple(size))
            write_png(mask_path(args.maskpath, images.names[index]), stored)
            empty += _is_empty(stored)
        return np.array([len(cams), empty])

    def keep_masks(indices: range) -> np.ndarray | None:
        """What `write_masks` would say where all masks of a part are there; None = make them."""
        try:
            stored = [read_stored_mask(mask_path(args.maskpath, images.names[index]))
                      for index in indices]
        except InputError:
            return None
        return np.array([len(stored), sum(map(_is_empty, stored))])

    bad = BadImages(args, images)
    counts = np.zeros(2, int)
    with Interruption() as interruption:
        for written in process(dataset, args, 'making pseudo masks', write_masks, bad,
                               keep_masks if args.resume else None):
            counts += written
            if interruption.received:
                break
    stopped = any_process(interruption.received)
    bad.write()
    counts = gather(counts)
    if not is_main():
        return
    count, empty = sum(counts).tolist()
    if stopped:
        print(f'stopped after {count} of {len(images)} images, whose masks are whole: '
              'go on with the same command and --resume')
    else:
        write_results(args, {'count': count, 'empty': empty}, time.monotonic() - begin, count)
        print(f'wrote {count} pseudo masks to {args.maskpath}'
              + (f'; {empty} of them have no foreground' if empty else '')
              + bad.mention())


def _is_empty(stored: np.ndarray) -> bool:
    return not seg_target(stored)[0].any()


def write_png(path: Path, image: np.ndarray) -> None:
    """Write bytes H x W (x 3, in OpenCV's BGR order) as PNG, by OpenCV's defaults: no other
    level or strategy that was tried is faster."""
    write_whole(path, lambda file: file.write(cv2.imencode('.png', image)[1]))
