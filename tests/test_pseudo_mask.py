"""Pseudo masks: the Gaussian prior by hand and against SPOL's formula, and the seg target."""

import numpy as np
import pytest

from utils.pseudo_mask import gaussian_prior, pseudo_mask, seg_target


@pytest.fixture(autouse=True)
def _no_arithmetic_warning():
    """Division by zero, NaN and overflow raise in all tests here."""
    with np.errstate(all='raise', under='ignore'):
        yield


def test_an_all_zero_cam_gives_an_all_zero_mask():
    mask = pseudo_mask(np.zeros((28, 28), np.float32), (13, 17))
    assert mask.shape == (13, 17, 3)
    assert mask.dtype == np.uint8
    assert not mask.any()


@pytest.mark.parametrize(('height', 'width', 'counts'), [
    (5, 6, True),    # the contour joins pixel centres: 4 x 5 = 20
    (6, 5, True),
    (5, 5, False),   # 4 x 4 = 16
    (2, 20, False),  # 1 x 19 = 19
    (2, 21, True),   # 1 x 20 = 20
])
def test_specks_of_less_than_20_pixels_are_ignored(height, width, counts):
    cam = np.zeros((256, 256))
    cam[100:100 + height, 100:100 + width] = 0.3
    assert gaussian_prior(cam).any() == counts


def test_the_seg_target_changes_at_the_right_bytes():
    """255 / 4 = 63.75: foreground from 64. 255 / 100 = 2.55: sure background up to 2."""
    stored = np.array([[[cam, prior, 0] for cam, prior in (
        (0, 0), (2, 0), (3, 0), (63, 0), (64, 0), (255, 0),
        (0, 63), (0, 64), (3, 63), (3, 64), (63, 63))]], np.uint8)
    foreground, valid = seg_target(stored)
    assert foreground.dtype == valid.dtype == bool
    assert foreground[0].tolist() == [False, False, False, False, True, True,
                                      False, True, False, True, False]
    assert valid[0].tolist() == [True, True, False, False, True, True,
                                  True, True, False, True, False]
