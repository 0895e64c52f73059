"""Pseudo masks of a batch: by hand, and against those made image by image."""

import numpy as np
import pytest
import torch
from test_pseudo_mask import SIDE, block, cam_of, cam_with, smooth_cam

import utils.localization.batched_pseudo_mask
import utils.localization.pseudo_mask
from utils.engine.transfer import Transfer
from utils.localization.batched_pseudo_mask import gaussian_priors, pseudo_masks
from utils.localization.pseudo_mask import Gaussian, pseudo_mask

CPU = Transfer(torch.device('cpu'))


def batched(cams, sizes):
    return list(pseudo_masks(torch.from_numpy(np.float32(cams)), sizes, CPU))


def assert_as_image_by_image(cams, sizes):
    """Equal to one grey level, which at most 0.1 % of each mask's bytes may differ by."""
    found = batched(cams, sizes)
    assert len(found) == len(cams)
    for mask, cam, size in zip(found, np.float32(cams), sizes, strict=True):
        assert_near(mask, pseudo_mask(cam, size))


def assert_near(mask, expected):
    assert mask.dtype == np.uint8
    assert mask.shape == expected.shape
    difference = np.abs(mask.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3


def test_a_block_gives_its_gaussian():
    """61 x 31 equal pixels have variances of 310 and 80: a tenth is 31 and 8. The mean is
    (130, 65), and the full value stands at the block of ones elsewhere."""
    cam = cam_of(block(50, 100, 31, 61), block(200, 200, 20, 20, 1.0))
    mask, = batched([cam], [(SIDE, SIDE)])
    assert mask[65, 130].tolist() == [76, 255, 0]           # 255 * 0.3 = 76.5
    assert mask[210, 210].tolist() == [254, 0, 0]           # 255 / (1 + 1e-6) = 254.9997
    assert mask[65, 141, 1] == int(255 * np.exp(-11**2 / 31 / 2))
    assert mask[70, 130, 1] == int(255 * np.exp(-5**2 / 8 / 2))
    assert not mask[100:190, :, 1].any()


def test_each_cam_gets_the_maximum_of_its_own_gaussians():
    narrow, wide = Gaussian(60, 50, 4, 4, 0), Gaussian(60, 50, 100, 25, 30)
    far = Gaussian(200, 220, 9, 9, 0)
    none, one, three = gaussian_priors([[], [far], [narrow, wide, far]], CPU)
    assert not none.any()
    assert one[220, 200] == three[220, 200] == three[50, 60] == 1
    assert one[50, 60] < 1e-6
    # 10 across: the wide one alone, exp(-100 / 100 / (2 (1 - 30² / 2500))); 10 down likewise
    assert three[50, 70] == pytest.approx(np.exp(-1 / (2 * 0.64)), abs=1e-6)
    assert three[60, 60] == pytest.approx(np.exp(-4 / (2 * 0.64)), abs=1e-6)
    # 10 across and 5 down: 1 - 2 * 10 * 5 * 30 / 2500 + 1 = 0.8
    assert three[55, 70] == pytest.approx(np.exp(-0.8 / (2 * 0.64)), abs=1e-6)


@pytest.mark.parametrize('k', range(10))
def test_golden_masks(golden, k):
    arrays = golden('pseudo_mask')
    mask, = batched([arrays[f'cam{k}']], [tuple(arrays['shape'][k].tolist())])
    assert_near(mask[..., :2], arrays[f'fuse{k}'])
    assert not mask[..., 2].any()


@pytest.mark.parametrize('side', [7, 28, 32, 64, 256])
def test_smooth_cams_and_images_of_all_sizes(side):
    cams = [5 * smooth_cam(seed, side) for seed in range(6)]
    assert_as_image_by_image(cams, [(375, 500), (500, 333), (128, 128), (13, 700), (1, 1),
                                    (SIDE, SIDE)])


def test_noise_with_many_contours():
    cams = np.random.default_rng(0).random((3, 64, 64)) ** 2
    assert_as_image_by_image(cams, [(300, 200)] * 3)


def test_cams_where_nothing_fires_among_others():
    cams = [np.zeros((28, 28)), np.ones((28, 28)), smooth_cam(1, 28), np.zeros((28, 28))]
    assert_as_image_by_image(cams, [(40, 60)] * 4)
    empty, constant, *_ = batched(cams, [(40, 60)] * 4)
    assert not empty.any()
    assert (constant == [254, 0, 0]).all()


def test_lines_have_no_gaussian(monkeypatch):
    """Only lines have a degenerate covariance, and are specks: so specks are let in here."""
    monkeypatch.setattr(utils.localization.pseudo_mask, 'MIN_CONTOUR_AREA', 0)
    cams = [cam_with([(100, x) for x in range(50, 150)]),
            cam_with([(50 + k, 60 + k) for k in range(100)]), cam_with([(7, 7)])]
    for cam in cams:
        cam[200:, 200:] = 1  # so that the lines stay weak
    masks = batched(cams, [(SIDE, SIDE)] * 3)
    assert all(mask[..., 0].any() for mask in masks)
    assert not any(mask[..., 1].any() for mask in masks)


def test_a_narrow_slanting_region():
    """Large terms cancel in the exponent of a Gaussian that is nearly a line."""
    cam = cam_of(*(block(20 + k, 20 + k, 2, 2) for k in range(200)), block(0, 200, 30, 50, 1.0))
    assert batched([cam], [(SIDE, SIDE)])[0][..., 1].max() > 250
    assert_as_image_by_image([cam], [(SIDE, SIDE)])


def test_masks_are_the_same_however_few_fit_into_memory(monkeypatch):
    cams = [smooth_cam(seed, 28) for seed in range(5)]
    sizes = [(30, 40), (200, 100), (30, 40), (30, 40), (20, 20)]
    expected = batched(cams, sizes)
    for most in (1, 3 * 30 * 40, 2 * 3 * 30 * 40, 10**6):
        monkeypatch.setattr(utils.localization.batched_pseudo_mask, 'MAX_BYTES', most)
        for mask, wanted in zip(batched(cams, sizes), expected, strict=True):
            np.testing.assert_array_equal(mask, wanted)
