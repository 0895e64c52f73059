"""Pseudo masks: the Gaussian prior by hand and against SPOL's formula, and the seg target."""

import cv2
import numpy as np
import pytest

import utils.pseudo_mask
from utils.pseudo_mask import (
    NEGLIGIBLE,
    gaussian_prior,
    has_foreground,
    pseudo_mask,
    scaled_cam,
    seg_target,
)

SIDE = 256


@pytest.fixture(autouse=True)
def _no_arithmetic_warning():
    """Division by zero, NaN and overflow raise in all tests here."""
    with np.errstate(all='raise', under='ignore'):
        yield


def cam_of(*blocks, side=SIDE, dtype=np.float64):
    """A map of zeros with blocks (rows, columns, value); rows and columns are slices."""
    cam = np.zeros((side, side), dtype)
    for rows, columns, value in blocks:
        cam[rows, columns] = value
    return cam


def block(top, left, height, width, value=0.3):
    return slice(top, top + height), slice(left, left + width), value


def reference_prior(cam):
    """The prior as its formula reads, on the whole image for each contour."""
    weak = np.where((cam >= 0.1) & (cam <= 0.5), cam, 0).astype(np.float64)
    contours = cv2.findContours((weak > 0).astype(np.uint8), cv2.RETR_TREE,
                                cv2.CHAIN_APPROX_SIMPLE)[0]
    y, x = np.mgrid[:cam.shape[0], :cam.shape[1]]
    prior, used = np.zeros(cam.shape), 0
    for contour in contours:
        if cv2.contourArea(contour) < 20:
            continue
        filled = np.zeros(cam.shape, np.uint8)
        cv2.drawContours(filled, [contour], 0, 1, thickness=cv2.FILLED)
        p = weak * filled
        p = p / p.sum()
        ux, uy = (p * x).sum(), (p * y).sum()
        sx = (p * (x - ux) ** 2).sum() / 10
        sy = (p * (y - uy) ** 2).sum() / 10
        sxy = (p * (x - ux) * (y - uy)).sum() / 10
        dx, dy = x - ux, y - uy
        exponent = dx ** 2 / sx - 2 * dx * dy * sxy / (sx * sy) + dy ** 2 / sy
        prior = np.maximum(prior, np.exp(-exponent / (2 * (1 - sxy ** 2 / (sx * sy)))))
        used += 1
    return prior, used


def smooth_cam(seed, side=SIDE, dtype=np.float64):
    """A random smooth map from 0 to 1, with a dozen hills."""
    rng = np.random.default_rng(seed)
    cam = cv2.GaussianBlur(rng.random((side, side)), (0, 0), side / 14)
    cam = np.clip((cam - cam.min()) / (cam.max() - cam.min()) * 1.3 - 0.3, 0, 1)
    return cam.astype(dtype)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('seed', range(6))
def test_the_prior_is_that_of_the_formula(seed, dtype):
    cam = smooth_cam(seed, dtype=dtype)
    expected, used = reference_prior(cam)
    assert used >= 2
    found = gaussian_prior(cam)
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() <= NEGLIGIBLE
    assert np.abs(found - expected)[found > NEGLIGIBLE].max() <= 1e-9


def test_an_all_zero_cam_gives_an_all_zero_mask():
    mask = pseudo_mask(np.zeros((28, 28), np.float32), (13, 17))
    assert mask.shape == (13, 17, 3)
    assert mask.dtype == np.uint8
    assert not mask.any()


@pytest.mark.parametrize('value', [0.09, 0.51, 1.0])
def test_without_a_value_between_the_bounds_there_is_no_gaussian(value):
    assert not gaussian_prior(cam_of(block(50, 50, 80, 80, value))).any()


@pytest.mark.parametrize('value', [0.1, 0.5])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_the_bounds_themselves_belong_to_the_weak_region(value, dtype):
    assert gaussian_prior(cam_of(block(50, 50, 80, 80, value), dtype=dtype)).max() > 0.99


@pytest.mark.parametrize(('height', 'width', 'counts'), [
    (5, 6, True),    # the contour joins pixel centres: 4 x 5 = 20
    (6, 5, True),
    (5, 5, False),   # 4 x 4 = 16
    (2, 20, False),  # 1 x 19 = 19
    (2, 21, True),   # 1 x 20 = 20
])
def test_specks_of_less_than_20_pixels_are_ignored(height, width, counts):
    assert gaussian_prior(cam_of(block(100, 100, height, width))).any() == counts


def test_the_gaussian_of_a_block_has_its_centre_and_a_tenth_of_its_variance():
    """A row of n equal pixels has variance (n^2 - 1) / 12: 310 for 61 and 80 for 31; a tenth
    of them is 31 and 8. The centre is 100 + 30 = 130 across and 50 + 15 = 65 down."""
    prior = gaussian_prior(cam_of(block(50, 100, height=31, width=61)))
    y, x = np.mgrid[:SIDE, :SIDE]
    expected = np.exp(-((x - 130) ** 2 / 31 + (y - 65) ** 2 / 8) / 2)
    np.testing.assert_allclose(prior, expected, rtol=0, atol=NEGLIGIBLE)
    np.testing.assert_allclose(prior[prior > 0], expected[prior > 0], rtol=0, atol=1e-12)
    assert np.unravel_index(prior.argmax(), prior.shape) == (65, 130)


def test_the_value_weighs_and_not_only_the_shape():
    """Left half 0.1, right half 0.3: the mean lies at (0.1 * 109.5 + 0.3 * 129.5) / 0.4 = 124.5."""
    prior = gaussian_prior(cam_of(block(50, 100, 20, 20, 0.1), block(50, 120, 20, 20, 0.3)))
    row = prior[59]
    assert row[124] == pytest.approx(row[125], abs=1e-12)
    assert row.argmax() in (124, 125)


def test_a_slanting_region_gives_a_slanting_gaussian():
    """Steps down to the right: the covariance is positive, so g falls slower that way."""
    cam = cam_of(*(block(80 + k, 80 + k, 10, 10) for k in range(60)))
    prior = gaussian_prior(cam)
    centre = np.array(np.unravel_index(prior.argmax(), prior.shape))
    along, across = centre + [8, 8], centre + [8, -8]
    assert prior[tuple(along)] > 10 * prior[tuple(across)] > 0


def test_two_regions_give_the_maximum_of_both():
    left, right = block(50, 40, 40, 60), block(60, 110, 50, 60)
    both = gaussian_prior(cam_of(left, right))
    apart = [gaussian_prior(cam_of(one)) for one in (left, right)]
    assert (apart[0] > 0.01).any()
    np.testing.assert_allclose(both, np.maximum(*apart), rtol=0, atol=1e-12)


def test_a_hole_is_a_contour_of_its_own():
    """The hole's contour runs through the region's pixels around it, symmetric to the hole's
    centre at (70, 70); the region's own mean is pushed beyond 100, away from the hole."""
    cam = cam_of(block(50, 50, 101, 101), block(60, 60, 21, 21, 0.0))
    prior = gaussian_prior(cam)
    assert prior[70, 70] == pytest.approx(1, abs=1e-12)
    assert prior[101:103, 101:103].max() > 0.99
    assert prior[85, 85] < 0.9


lines = pytest.mark.parametrize('points', [
    [(100, x) for x in range(50, 150)],
    [(y, 100) for y in range(50, 150)],
    [(50 + k, 60 + k) for k in range(100)],
    [(150 - k, 60 + k) for k in range(100)],
    [(7, 7)],
    [(0, x) for x in range(SIDE)],
], ids=['across', 'down', 'diagonal', 'other diagonal', 'point', 'edge'])
def cam_with(points):
    cam = np.zeros((SIDE, SIDE))
    cam[tuple(np.transpose(points))] = 0.3
    return cam


@lines
@pytest.mark.filterwarnings('error')
def test_a_line_has_no_area_and_so_no_gaussian(points):
    cam = cam_with(points)
    assert not gaussian_prior(cam).any()
    other = cam_of(block(180, 180, 30, 30))
    np.testing.assert_allclose(gaussian_prior(np.maximum(cam, other)), gaussian_prior(other),
                               rtol=0, atol=1e-12)


@lines
@pytest.mark.filterwarnings('error')
def test_a_degenerate_covariance_gives_no_gaussian(points, monkeypatch):
    """Only lines have one, which are specks: so specks are let in here."""
    monkeypatch.setattr(utils.pseudo_mask, 'MIN_CONTOUR_AREA', 0)
    assert not gaussian_prior(cam_with(points)).any()


@pytest.mark.parametrize('seed', range(6))
def test_the_prior_lies_between_0_and_1(seed):
    prior = gaussian_prior(smooth_cam(seed + 50, side=64))
    assert prior.min() >= 0
    assert prior.max() <= 1


def test_a_cam_is_scaled_to_a_maximum_of_1():
    """4 / (4 + 1e-6) is 1 but for 2.5e-7; 1 / 4 is a quarter."""
    scaled = scaled_cam(np.array([[4, 4], [1, 1]], np.float32), SIDE)
    assert scaled.shape == (SIDE, SIDE)
    np.testing.assert_allclose([scaled[0, 0], scaled[-1, -1]], [1, 0.25], atol=1e-6)


def test_the_stored_mask_holds_cam_prior_and_nothing():
    """A constant CAM has no weak region; 255 * (1 - 1e-6) is truncated to 254."""
    mask = pseudo_mask(np.ones((28, 28), np.float32), (40, 60))
    assert mask.shape == (40, 60, 3)
    assert (mask == [254, 0, 0]).all()


def test_the_stored_prior_is_that_of_the_scaled_cam():
    """At 256 x 256 nothing is resized on the way out; a byte is the truncated value."""
    cam = (7 * smooth_cam(3)).astype(np.float32)
    mask = pseudo_mask(cam, (SIDE, SIDE))
    scaled = cam / (cam.max() + np.float32(1e-6))
    np.testing.assert_array_equal(mask[..., 0], (255 * scaled).astype(np.uint8))
    np.testing.assert_array_equal(mask[..., 1],
                                  (255 * gaussian_prior(scaled)).astype(np.uint8))
    assert mask[..., 1].max() > 200


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


@pytest.mark.parametrize(('cam', 'prior'), [(0, 0), (63, 63), (64, 0), (0, 64), (255, 255)])
def test_a_mask_has_foreground_where_its_seg_target_has(cam, prior):
    stored = np.zeros((5, 7, 3), np.uint8)
    stored[2, 3, :2] = cam, prior
    for channels in (stored, stored[..., :2]):
        assert has_foreground(channels) == seg_target(channels)[0].any() == (max(cam, prior) > 63)


def test_the_seg_target_takes_two_channels_as_well():
    stored = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for with_three, with_two in zip(seg_target(stored), seg_target(stored[..., :2]), strict=True):
        np.testing.assert_array_equal(with_three, with_two)
