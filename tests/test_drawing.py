"""Pictures of maps and boxes, contact sheets, and which images they show."""

import cv2
import numpy as np
import pytest
import torch

from utils.boxes import CentreCrop
from utils.drawing import (
    GAP,
    GT_COLOUR,
    OUTLINE_COLOUR,
    PRED_COLOUR,
    TITLE_HEIGHT,
    Row,
    contact_sheet,
    draw_boxes,
    fit,
    heatmap,
    outline,
    overlay,
    sweep_curves,
    target_image,
)
from utils.lists import ImageList
from utils.sheets import BEST, SEG_TITLES, WORST, seg_rows, spread_views


def picture(height=40, width=60, value=100):
    return np.full((height, width, 3), value, np.uint8)


def test_what_the_loss_ignores_is_hatched_and_nothing_else():
    foreground, valid = np.zeros((2, 32, 32), bool)
    foreground[:, :10] = True
    valid[:, :20] = True  # columns 20 to 31 are ignored
    target = target_image(foreground, valid)
    assert (target[:, :10] == 255).all()
    assert (target[:, 10:20] == 0).all()
    assert sorted(np.unique(target[:, 20:])) == [40, 210]


def test_a_heatmap_is_brighter_where_the_map_is_higher():
    score_map = np.tile(np.linspace(0, 1, 60), (40, 1))
    brightness = heatmap(picture(), score_map).astype(int).sum((0, 2))
    assert brightness[0] < brightness[20] < brightness[40] < brightness[59]


def test_true_boxes_are_green_and_the_predicted_one_red():
    drawn = draw_boxes(picture(), np.array([[5, 5, 20, 20], [np.nan] * 4]), (30, 10, 50, 30))
    assert tuple(drawn[5, 10]) == GT_COLOUR
    assert tuple(drawn[20, 30]) == PRED_COLOUR
    assert np.array_equal(draw_boxes(picture(), None, None), picture())


def test_an_outline_leaves_the_inside_as_it_is():
    foreground = np.zeros((40, 60), bool)
    foreground[10:30, 10:50] = True
    drawn = outline(picture(), foreground)
    assert (drawn[15:25, 20:40] == 100).all()
    assert (drawn[:5] == 33).all()
    assert (drawn == OUTLINE_COLOUR).all(2).any()


@pytest.mark.parametrize('shape', [(40, 60), (60, 40), (500, 300), (1, 9)])
def test_a_picture_keeps_its_aspect_ratio_in_a_cell(shape):
    scale = 160 / max(shape)
    assert fit(picture(*shape), 160).shape == (
        max(1, round(scale * shape[0])), max(1, round(scale * shape[1])), 3)


def test_a_sheet_has_a_cell_for_each_picture_and_marks_rows():
    mark = (10, 200, 30)
    rows = [Row([picture(), None], 'IoU 0.90, best', mark), Row([picture(), picture()], 'IoU 0.1')]
    sheet = contact_sheet(rows, ['image', 'box'])
    height = round(160 * 40 / 60)  # that of the pictures
    assert sheet.shape == (TITLE_HEIGHT + 2 * (height + GAP + TITLE_HEIGHT), 2 * (160 + GAP), 3)
    assert (sheet == mark).all(2).any()
    empty = sheet[TITLE_HEIGHT:TITLE_HEIGHT + height, 160 + GAP:320 + GAP]
    assert (empty == 255).all()
    assert (sheet[:TITLE_HEIGHT] < 100).any()  # the titles


@pytest.mark.parametrize('box', [None, (0, 0, 60, 40), (50, 30, 60, 40)])
@pytest.mark.parametrize('text', ['', 'ant 0.9', 'a very long class name ' * 9])
def test_an_overlay_has_the_size_of_the_image(box, text):
    drawn = overlay(picture(), np.zeros((40, 60), bool), box, text)
    assert drawn.shape == (40, 60, 3)
    assert (drawn == PRED_COLOUR).all(2).any() == bool(text or box)


def test_curves_of_a_sweep_are_a_picture():
    sweep = {'thresholds': [0, 0.5, 0.9], 'strict': [0.2, 0.6, 0.1], 'paper': [0.2, 0.7, 0.4]}
    drawn = cv2.imdecode(np.frombuffer(sweep_curves({'SPOL': sweep}), np.uint8), cv2.IMREAD_COLOR)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20


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


def test_rows_of_a_sheet_name_their_ious_the_best_and_the_worst(images):
    logits = torch.full((1, 1, 8, 8), -9.0)
    logits[..., :4] = 9
    rows = seg_rows(lambda batch: logits, images, CentreCrop(8), 3, 0.5)
    assert [len(row.pictures) for row in rows] == [len(SEG_TITLES) - 1] * 3  # no pseudo masks
    assert rows[0].caption == 'IoU 0.00, worst'
    assert rows[1].caption == 'IoU 0.88, best'  # 4 x 7 of 4 x 8
    assert [row.mark for row in rows[:2]] == [WORST, BEST]
