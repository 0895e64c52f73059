"""Boxes: found in maps, compared, and carried to the crop and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.boxes import CentreCrop, iou, largest_box

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


@settings(deadline=None)
@given(any_boxes, any_boxes)
def test_iou_is_symmetric_and_in_0_1(a, b):
    value = iou(a, b)
    assert value == iou(b, a)
    assert 0 <= value <= 1


@settings(deadline=None)
@given(boxes, boxes)
def test_iou_is_1_for_the_same_box_alone(a, b):
    assert (iou(a, b) == 1) == (a == b)


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


@pytest.mark.parametrize('threshold', [0, 0.2, 0.9])
def test_a_map_of_zeros_has_no_box(threshold):
    """Rather than the box of the whole image."""
    assert largest_box(np.zeros((8, 8)), threshold) is None


@settings(deadline=None)
@given(st.integers(0, 27), st.integers(0, 27), st.integers(1, 5), st.integers(1, 5))
def test_any_rectangle_is_its_own_box(x, y, width, height):
    box = (x, y, x + width, y + height)
    assert largest_box(map_of(box), 0.5) == box


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
