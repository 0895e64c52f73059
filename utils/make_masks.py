"""cam/test: pseudo masks of the training images, from the CAM of each one's class."""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from network import CamNet
from utils.datasets import TestImages, mask_path
from utils.errors import InputError
from utils.files import write_whole
from utils.lists import ImageList
from utils.pseudo_mask import pseudo_mask, seg_target
from utils.results import write_results
from utils.testing import Predictor, labels_of, test_batches


def make_pseudo_masks(args: argparse.Namespace, model: CamNet, images: ImageList,
                      folder: Path) -> None:
    """Write a pseudo mask for each image of a list in `folder` to `args.maskpath`."""
    if args.crop:
        raise InputError(f'--crop {args.crop}: pseudo masks are of whole images; leave it out')
    begin = time.monotonic()
    predictor = Predictor(model, args)
    dataset = TestImages(images, folder, args.resize, args.crop)
    empty = 0
    for batch in test_batches(dataset, args, 'making pseudo masks'):
        _, cams = predictor(batch['image'], labels_of(images, batch), method=model.class_cams)
        for index, size, cam in zip(batch['index'].tolist(), batch['size'].tolist(),
                                    cams.cpu().numpy(), strict=True):
            stored = pseudo_mask(cam, tuple(size))
            write_png(mask_path(args.maskpath, images.names[index]), stored)
            empty += not seg_target(stored)[0].any()
    write_results(args, {'count': len(images), 'empty': empty}, time.monotonic() - begin,
                  len(images))
    print(f'wrote {len(images)} pseudo masks to {args.maskpath}'
          + (f'; {empty} of them have no foreground' if empty else ''))


def write_png(path: Path, image: np.ndarray) -> None:
    """Write bytes H x W (x 3, in OpenCV's BGR order) as PNG."""
    write_whole(path, lambda file: file.write(cv2.imencode('.png', image)[1]))
