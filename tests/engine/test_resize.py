"""Resizing of a batch on its device, beside OpenCV's."""

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from utils.engine.resize import pixels_of, resized_views
from utils.engine.transfer import Transfer
from utils.localization.boxes import CentreCrop

CPU = Transfer(torch.device('cpu'))
SIZES = [(375, 500), (500, 333), (30, 40), (256, 256), (1, 1), (3, 700), (512, 512)]


def resized(images, view):
    sizes = np.array([image.shape[:2] for image in images])
    return resized_views(pixels_of(images), sizes, {'image': view}, CPU)['image']


def photograph(seed, size):
    """Smooth, with noise: OpenCV before version 5 rounds coordinates to float32."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), size[::-1],
                        interpolation=cv2.INTER_CUBIC)
    return cv2.add(smooth, rng.integers(0, 8, smooth.shape, np.uint8))


@pytest.mark.parametrize(('resize', 'crop'), [(256, 224), (224, 0), (685, 600), (255, 200)])
def test_equal_to_opencv_in_float32(resize, crop):
    images = [photograph(seed, size) for seed, size in enumerate(SIZES)]
    view = CentreCrop(resize, crop)
    found = resized(images, view)
    expected = np.stack([view.view(image) for image in images])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(('resize', 'crop'), [(256, 224), (224, 0), (255, 200)])
def test_the_transform_is_bit_for_bit_that_of_albumentations(resize, crop):
    steps = [A.ToFloat(max_value=255),
             A.Resize(resize, resize, interpolation=cv2.INTER_LINEAR)]
    expected = A.Compose(steps + ([A.CenterCrop(crop, crop)] if crop else []))
    for seed, size in enumerate(SIZES):
        image = photograph(seed, size)
        np.testing.assert_array_equal(CentreCrop(resize, crop).view(image),
                                      expected(image=image)['image'])


def test_by_hand():
    """Two pixels become four: 0, a quarter, three quarters, 1."""
    image = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    found = resized([image], CentreCrop(4))
    np.testing.assert_allclose(found[0, :, :, 0].numpy(), [[0, 0.25, 0.75, 1]] * 4, atol=1e-6)


def test_golden_pictures(golden):
    """The inputs of the released networks."""
    pictures = golden('pictures')
    images = [pictures[name] for name in sorted(pictures) if name.startswith('image')
              and pictures[name].dtype == np.uint8]
    view = CentreCrop(256, 224)
    found = resized(images, view).numpy()
    for image, view_of_it in zip(images, found, strict=True):
        np.testing.assert_allclose(view_of_it, view.view(image), rtol=0, atol=1e-5)
