"""Boxes: found in maps, compared, and carried to the crop and back."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.boxes import CentreCrop, clip_to_image, iou, largest_box

coordinates = st.integers(-1000, 1000)
sides = st.integers(1, 1000)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinates, coordinates, sides, sides)
any_boxes = st.tuples(coordinates, coordinates, coordinates, coordinates)


def map_of(*blobs, value=1.0, side=32, dtype=np.float64):
    """A map of zeros with boxes (x0, y0, x1, y1) filled."""
    score_map = np.zeros((side, side), dtype)
    for x0, y0, x1, y1 in blobs:
        score_map[y0:y1, x0:x1] = value
    return score_map


@pytest.mark.parametrize(('a', 'b', 'expected'), [
    ((0, 0, 10, 10), (0, 0, 10, 10), 1),
    ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
    ((0, 0, 10, 10), (5, 5, 15, 15), 25 / 175),
    ((0, 0, 10, 10), (2, 2, 7, 6), 20 / 100),      # inside
    ((0, 0, 10, 10), (10, 0, 20, 10), 0),          # touching
    ((0, 0, 10, 10), (20, 20, 30, 30), 0),         # apart in both directions
    ((0, 0, 10, 10), (5, 5, 5, 5), 0),             # a point
    ((3, 3, 3, 3), (3, 3, 3, 3), 0),               # nothing with nothing
    ((0, 0, 10, 10), (8, 8, 2, 2), 0),             # inside out
    ((0.5, 0, 1.5, 1), (0, 0, 1, 1), 0.5 / 1.5),
])
def test_iou_is_intersection_over_union_without_plus_one(a, b, expected):
    assert iou(a, b) == pytest.approx(expected, abs=1e-12)


def test_iou_broadcasts():
    a = np.array([[[0, 0, 2, 2]], [[0, 0, 4, 4]]])
    b = np.array([[0, 0, 2, 2], [0, 0, 2, 4], [2, 2, 4, 4]])
    np.testing.assert_allclose(iou(a, b), [[1, 4 / 8, 0], [4 / 16, 8 / 16, 4 / 16]])


@settings(deadline=None)
@given(any_boxes, any_boxes)
def test_iou_is_symmetric_and_in_0_1(a, b):
    value = iou(a, b)
    assert value == iou(b, a)
    assert 0 <= value <= 1


@settings(deadline=None)
@given(boxes)
def test_iou_of_a_box_with_itself_is_1(box):
    assert iou(box, box) == 1


@settings(deadline=None)
@given(boxes, boxes, coordinates, coordinates)
def test_iou_does_not_change_when_both_boxes_move(a, b, x, y):
    shift = np.array([x, y, x, y])
    assert iou(a + shift, b + shift) == iou(a, b)


@settings(deadline=None)
@given(boxes, boxes)
def test_iou_is_1_for_the_same_box_alone(a, b):
    assert (iou(a, b) == 1) == (a == b)


def test_a_map_without_foreground_has_no_box():
    assert largest_box(np.zeros((8, 8)), 0.2) is None


def test_a_blobs_box_ends_after_its_last_pixel():
    assert largest_box(map_of((3, 2, 8, 5)), 0.2) == (3, 2, 8, 5)


def test_the_whole_map_may_be_the_box():
    assert largest_box(np.ones((6, 9)), 0.2) == (0, 0, 9, 6)


def test_a_single_pixel_has_a_box():
    assert largest_box(map_of((4, 7, 5, 8)), 0.2) == (4, 7, 5, 8)


def test_the_largest_of_several_blobs_is_taken():
    assert largest_box(map_of((0, 0, 5, 5), (10, 10, 20, 16), (25, 25, 30, 30)), 0.2) == (
        10, 10, 20, 16)


def test_area_is_the_contours_and_not_the_boxs():
    """A thin frame's outer contour encloses 11 x 11 = 121, more than a block's 9 x 9 = 81,
    though it has fewer pixels (44 to 100)."""
    frame = map_of((0, 0, 12, 12)) - map_of((1, 1, 11, 11))
    assert largest_box(frame + map_of((20, 20, 30, 30)), 0.2) == (0, 0, 12, 12)
    # A slanting line has a large box but no area.
    line = np.zeros((32, 32))
    line[np.arange(25), np.arange(25)] = 1
    assert largest_box(line + map_of((28, 2, 31, 5)), 0.2) == (28, 2, 31, 5)


@pytest.mark.parametrize('blobs', [
    ((2, 3, 8, 9), (15, 20, 21, 26)),
    ((2, 20, 8, 26), (20, 3, 26, 9)),
    ((1, 1, 3, 2), (5, 1, 7, 2), (9, 1, 11, 2))])
def test_of_blobs_of_equal_area_the_first_contour_is_taken(blobs):
    score_map = map_of(*blobs)
    contours = cv2.findContours((score_map > 0.2).astype(np.uint8), cv2.RETR_TREE,
                                cv2.CHAIN_APPROX_SIMPLE)[0]
    assert len(contours) == len(blobs)
    assert len({cv2.contourArea(contour) for contour in contours}) == 1
    x, y, width, height = cv2.boundingRect(contours[0])
    assert largest_box(score_map, 0.2) == (x, y, x + width, y + height)


@pytest.mark.parametrize(('dtype', 'kind'), [
    (np.float16, float), (np.float16, np.float64), (np.float32, float), (np.float32, np.float64),
    (np.float64, float), (np.float64, np.float64)])
def test_foreground_exceeds_the_threshold_in_the_maps_own_precision(dtype, kind):
    """float32(0.2) = 0.2000000030 is not above 0.2 as float32 has it, but the next value is;
    whether the threshold is Python's or, as in a sweep, numpy's."""
    equal = dtype(0.2)
    above = np.nextafter(equal, dtype(1))
    score_map = map_of((3, 3, 9, 9), value=equal, dtype=dtype)
    assert largest_box(score_map, kind(0.2)) is None
    score_map[3:9, 3:9] = above
    assert largest_box(score_map, kind(0.2)) == (3, 3, 9, 9)


def test_a_box_is_plain_integers():
    box = largest_box(map_of((3, 2, 8, 5)), 0.2)
    assert [type(value) for value in box] == [int] * 4


@settings(deadline=None)
@given(st.integers(0, 27), st.integers(0, 27), st.integers(1, 5), st.integers(1, 5))
def test_any_rectangle_is_its_own_box(x, y, width, height):
    box = (x, y, x + width, y + height)
    assert largest_box(map_of(box), 0.5) == box


def test_clipping_to_the_image_ends_at_the_last_pixel():
    """Height 40, width 60: x in 0 ... 59, y in 0 ... 39."""
    found = clip_to_image(np.array([[-5.5, -1, 61, 41], [3, 4, 5, 6], [58, 38, 60, 40]]), (40, 60))
    assert found.tolist() == [[0, 0, 59, 39], [3, 4, 5, 6], [58, 38, 59, 39]]


@pytest.mark.parametrize(('box', 'expected'), [
    # Width 1024 and height 512 to 256: a quarter and a half; less 16.
    ((100, 60, 900, 400), (25 - 16, 30 - 16, 225 - 16, 200 - 16)),
    ((0, 0, 1024, 512), (0, 0, 224, 224)),                      # clipped on all sides
    ((0, 100, 512, 200), (0, 34, 112, 84)),                     # clipped on the left
    ((0, 0, 63, 512), (np.nan,) * 4),                           # 63 / 4 < 16: nothing left
    ((0, 0, 64, 512), (np.nan,) * 4),                           # 64 / 4 = 16: no width left
    ((0, 0, 68, 512), (0, 0, 1, 224)),                          # 68 / 4 = 17: one column
    ((960, 0, 1024, 512), (np.nan,) * 4),                       # from 240 on: beyond the crop
    ((0, 481, 1024, 512), (np.nan,) * 4),
])
def test_a_box_goes_through_resize_and_centre_crop(box, expected):
    found = CentreCrop(256, 224).to_crop(np.array(box), (512, 1024))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_several_boxes_go_each_its_own_way():
    boxes = np.array([[0, 0, 10, 10], [100, 60, 900, 400]])
    found = CentreCrop(256, 224).to_crop(boxes, (512, 1024))
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [9, 14, 209, 184]


def test_without_a_crop_a_box_is_only_resized_and_clipped():
    found = CentreCrop(256, 0).to_crop(np.array([100, 60, 1100, 400]), (512, 1024))
    assert found.tolist() == [25, 30, 256, 200]


def test_a_box_comes_back_from_the_crop():
    """(9 + 16) * 4 = 100, (14 + 16) * 2 = 60, ..."""
    found = CentreCrop(256, 224).from_crop((9, 14, 209, 184), (512, 1024))
    assert found.tolist() == [100, 60, 900, 400]


@settings(deadline=None)
@given(st.data(), st.integers(1, 3000), st.integers(1, 3000), st.integers(2, 700), st.booleans())
def test_to_the_crop_is_the_inverse_of_from_the_crop(data, height, width, resize, whole):
    crop = 0 if whole else data.draw(st.integers(2, resize))
    corner = st.integers(0, (crop or resize) - 1)
    x0, y0 = data.draw(corner), data.draw(corner)
    box = (x0, y0, data.draw(st.integers(x0 + 1, crop or resize)),
           data.draw(st.integers(y0 + 1, crop or resize)))
    view = CentreCrop(resize, crop)
    there = view.from_crop(box, (height, width))
    np.testing.assert_allclose(view.to_crop(there, (height, width)), box, atol=1e-6)
