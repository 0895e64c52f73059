"""Contact sheets: which images they show, and with what figures."""

import numpy as np
import pytest
import torch
from conftest import write_image

from utils.boxes import CentreCrop
from utils.drawing import SEG_TITLES, seg_rows, spread_views
from utils.lists import ImageList


@pytest.fixture
def images(tmp_path) -> ImageList:
    """Ten images of 8 x 8. The left half is the object of all but the first."""
    names = [f'{number}.png' for number in range(10)]
    for name in names:
        write_image(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    boxes = np.array([[[0, 0, 4, 7]]] * 10, float)
    boxes[0] = 6, 0, 7, 7
    return ImageList(np.array(names), np.zeros(10, np.int64), boxes, tmp_path)


@pytest.mark.parametrize(('count', 'shown'), [
    (0, []), (1, [0]), (3, [0, 4, 8]), (10, range(10)), (99, range(10))])
def test_rows_are_spread_over_the_list_and_name_their_ious(images, count, shown):
    logits = torch.full((1, 1, 8, 8), -9.0)
    logits[..., :4] = 9
    assert [view.index for view in spread_views(images, CentreCrop(8), count)] == [*shown]
    rows = seg_rows(lambda batch: logits, images, CentreCrop(8), count, 0.5)
    assert {len(row.pictures) for row in rows} <= {len(SEG_TITLES)}
    assert [row.caption for row in rows] == [  # 4 x 7 of 4 x 8
        'IoU 0.88' if index else 'IoU 0.00' for index in shown]
