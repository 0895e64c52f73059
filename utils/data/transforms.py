"""Transforms: albumentations, made exact in tests and reproducible in training."""

import random

import albumentations as A
import cv2
import numpy as np


def eval_transform(resize: int, crop: int = 0) -> A.Compose:
    """An image, uint8 H x W x 3 -> float32 in [0, 1], resize x resize, or its centre crop.

    The image becomes float32 before it is resized. Resizing bytes would round to whole grey
    levels, which moves boxes by pixels and changes pseudo masks.
    """
    steps = [A.ToFloat(max_value=255),
             A.Resize(resize, resize, interpolation=cv2.INTER_LINEAR)]
    return A.Compose(steps + ([A.CenterCrop(crop, crop)] if crop else []))


def seed_transform(transform: A.Compose, *entropy: int) -> None:
    """Make the transform's next call depend on `entropy` (integers >= 0) alone."""
    state = np.random.SeedSequence(entropy)
    # set_random_seed would give each step the same stream, so that all apply together or none.
    transform.set_random_state(np.random.default_rng(state),
                               random.Random(int(state.generate_state(1, np.uint64)[0])))
