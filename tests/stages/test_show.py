"""Which images the contact sheets show."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.data.lists import ImageList
from utils.localization.boxes import CentreCrop
from utils.stages.show import spread_views


@pytest.fixture
def images(tmp_path) -> ImageList:
    """Ten images; the first and the fifth cannot be decoded."""
    names = [f'{number}.png' for number in range(10)]
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    for number in (0, 4):
        Path(tmp_path / names[number]).write_bytes(b'damaged')
    return ImageList(np.array(names), np.zeros(10, np.int64), None, tmp_path)


@pytest.mark.parametrize(('count', 'shown'), [
    (0, []), (1, [1]), (3, [1, 5, 7]), (10, [1, 2, 3, 5, 6, 7, 8, 9]),
    (99, [1, 2, 3, 5, 6, 7, 8, 9])])
def test_images_are_spread_over_the_list(images, count, shown):
    views = spread_views(images, CentreCrop(8), count)
    assert [view.index for view in views] == shown
