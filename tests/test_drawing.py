"""Pictures of maps and boxes, contact sheets, and which images they show."""

import cv2
import numpy as np
import pytest
import torch

from utils.boxes import CentreCrop
from utils.drawing import GAP, TITLE_HEIGHT, Row, contact_sheet
from utils.lists import ImageList
from utils.sheets import SEG_TITLES, seg_rows, spread_views


def test_a_sheet_has_a_cell_for_each_picture():
    wide, high = np.full((40, 60, 3), 100, np.uint8), np.full((60, 40, 3), 100, np.uint8)
    sheet = contact_sheet([Row([wide, wide], 'IoU 0.90'), Row([wide, high])], ['image', 'box'])
    top = TITLE_HEIGHT + 107 + GAP + TITLE_HEIGHT  # 107 = 160 * 40 / 60
    assert sheet.shape == (top + 160 + GAP, 2 * (160 + GAP), 3)
    assert (sheet[:TITLE_HEIGHT] < 100).any()  # the titles
    assert (sheet[TITLE_HEIGHT:top - TITLE_HEIGHT - GAP, :160] == 100).all()
    assert (sheet[top:, 160 + GAP:][:160, :107] == 100).all()
    assert (sheet[top + 107:, :160] == 255).all()


@pytest.fixture
def images(tmp_path) -> ImageList:
    """Ten images of 8 x 8; the first and the fifth cannot be decoded. The left half is the object
    of all but the second."""
    names = [f'{number}.png' for number in range(10)]
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
        if number in (0, 4):
            (tmp_path / name).write_bytes(b'damaged')
    boxes = np.array([[[0, 0, 4, 7]]] * 10, float)
    boxes[1] = 6, 0, 7, 7
    return ImageList(np.array(names), np.zeros(10, np.int64), boxes, tmp_path)


@pytest.mark.parametrize(('count', 'shown'), [
    (0, []), (1, [1]), (3, [1, 5, 7]), (10, [1, 2, 3, 5, 6, 7, 8, 9]),
    (99, [1, 2, 3, 5, 6, 7, 8, 9])])
def test_images_are_spread_over_the_list(images, count, shown):
    views = spread_views(images, CentreCrop(8), count)
    assert [view.index for view in views] == shown


def test_rows_of_a_sheet_name_their_ious(images):
    logits = torch.full((1, 1, 8, 8), -9.0)
    logits[..., :4] = 9
    rows = seg_rows(lambda batch: logits, images, CentreCrop(8), 3, 0.5)
    assert [len(row.pictures) for row in rows] == [len(SEG_TITLES) - 1] * 3  # no pseudo masks
    assert [row.caption for row in rows[:2]] == ['IoU 0.00', 'IoU 0.88']  # 4 x 7 of 4 x 8
