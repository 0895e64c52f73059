"""Boxes: found in maps, compared, and carried to the crop and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.boxes import CentreCrop, iou, largest_box

coordinates = st.integers(-1000, 1000)
sides = st.integers(1, 1000)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinates, coordinates, sides, sides)


@settings(deadline=None)
@given(boxes, boxes)
def test_iou_is_symmetric_and_1_for_the_same_box_alone(a, b):
    assert 0 <= iou(a, b) == iou(b, a) <= 1
    assert (iou(a, b) == 1) == (a == b)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('kind', [float, np.float64])
def test_foreground_exceeds_the_threshold_in_the_maps_own_precision(dtype, kind):
    """float32(0.2) = 0.2000000030 is not above 0.2 as float32 has it, but the next value is;
    whether the threshold is Python's or, as in a sweep, numpy's."""
    score_map = np.zeros((32, 32), dtype)
    assert largest_box(score_map, kind(0)) is None
    score_map[3:9, 3:9] = 0.2
    assert largest_box(score_map, kind(0.2)) is None
    score_map[3:9, 3:9] = np.nextafter(dtype(0.2), dtype(1))
    assert largest_box(score_map, kind(0.2)) == (3, 3, 9, 9)


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
