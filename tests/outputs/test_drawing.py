"""Contact sheets and what stands on them."""

import numpy as np
import pytest

from utils.outputs.drawing import (
    GAP,
    GT_COLOUR,
    NAME_WIDTH,
    PRED_COLOUR,
    TITLE_HEIGHT,
    Row,
    contact_sheet,
    draw_boxes,
    fit,
    heatmap,
    join_sheets,
    outline,
    overlay,
    target_image,
)


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


@pytest.mark.parametrize('shape', [(40, 60), (60, 40), (500, 300), (1, 9)])
def test_a_picture_keeps_its_aspect_ratio_in_a_cell(shape):
    cell = fit(picture(*shape, value=0), 160)
    assert cell.shape == (160, 160, 3)
    dark = (cell < 255).all(2)
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    scale = 160 / max(shape)
    assert (len(rows), len(columns)) == (max(1, round(scale * shape[0])),
                                         max(1, round(scale * shape[1])))


def test_a_sheet_has_a_cell_for_each_picture_and_marks_rows():
    mark = (10, 200, 30)
    rows = [Row([picture(), None], 'IoU 0.90, best', mark), Row([picture(), picture()], 'IoU 0.1')]
    sheet = contact_sheet(rows, ['image', 'box'])
    height = round(160 * 40 / 60)  # that of the pictures
    assert sheet.shape == (TITLE_HEIGHT + 2 * (height + GAP + TITLE_HEIGHT), 2 * (160 + GAP), 3)
    assert (sheet == mark).all(2).any()
    empty = sheet[TITLE_HEIGHT:TITLE_HEIGHT + height, 160 + GAP:320 + GAP]
    assert (empty == 255).all()


def test_sheets_are_joined_below_one_header():
    wide, high = (contact_sheet([Row([picture(*size)], 'ant 0.9')], ['image'])
                  for size in ((40, 60), (60, 40)))
    sheet = join_sheets({'a.jpg': wide, f'folder/{"b" * 60}.jpg': high})
    assert sheet.shape == (len(wide) + len(high) - TITLE_HEIGHT, NAME_WIDTH + 160 + GAP, 3)
    np.testing.assert_array_equal(sheet[:len(wide), NAME_WIDTH:], wide)
    np.testing.assert_array_equal(sheet[len(wide):, NAME_WIDTH:], high[TITLE_HEIGHT:])
    assert (sheet[TITLE_HEIGHT:2 * TITLE_HEIGHT, :NAME_WIDTH] < 255).any()


@pytest.mark.parametrize('box', [None, (0, 0, 60, 40), (50, 30, 60, 40)])
@pytest.mark.parametrize('text', ['', 'ant 0.9', 'a very long class name ' * 9])
def test_an_overlay_has_the_size_of_the_image(box, text):
    foreground = np.zeros((40, 60), bool)
    drawn = overlay(picture(), foreground, box, text)
    assert drawn.shape == (40, 60, 3)
    assert (drawn == PRED_COLOUR).all(2).any() == bool(text or box)
