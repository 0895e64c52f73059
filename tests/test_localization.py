"""A list and a network -> tables, metrics and printed figures, without a run of a script."""

import csv
import json
import re
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import complaint, write_image
from torch import nn

from utils.boxes import CentreCrop
from utils.inference import Predictor
from utils.lists import check_selection, cub_images
from utils.localization import evaluate
from utils.results import RunFolder

CROP = CentreCrop(64)
OPTIONS = dict(threshold=0.2, sweep=False, metrics='all', save_maps=False, batch_size=2,
               num_workers=1)


@pytest.fixture
def data(tmp_path):
    """Five grey images of 64 x 64 whose left half is the object; the last one's box is wrong."""
    lines = []
    for number in range(5):
        name = f'a/{number}.png'
        write_image(tmp_path / 'image' / name, np.full((64, 64, 3), 40, np.uint8))
        mask = np.zeros((64, 64), np.uint8)
        mask[:, :32] = 255
        write_image(tmp_path / 'segmentation' / name, mask)
        lines.append(f'{name},{number % 2},{"0 0 32 63" if number < 4 else "40 0 63 63"}\n')
    (tmp_path / 'val.txt').write_text(''.join(lines))
    return tmp_path


class LeftHalf(nn.Module):
    """Finds the left half, with a probability of 0.73 beside 0.27 (or 0.5 beside 0.5)."""

    mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)

    def __init__(self, high=1.0, low=-1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([high, low]))

    def forward(self, images):
        maps = self.weight.repeat_interleave(images.shape[3] // 2)
        return maps.expand(len(images), 1, images.shape[2], -1)

    def class_cams(self, images, labels):
        fused = torch.zeros(len(images), 8, 8)
        fused[..., :4] = 3.0
        return torch.ones(len(images), 8, 8), fused


def evaluated(data, hits=None, selection=None, model=None, method='forward', kinds=('SPOL',),
              **changes):
    """results.json of an evaluation."""
    predict = Predictor(model or LeftHalf(), torch.device('cpu'), method=method)
    evaluate(predict, kinds, cub_images(data, 'val.txt', 2), CROP,
             Namespace(**{**OPTIONS, **changes}), RunFolder(data / 'out'), hits, selection)
    return json.loads((data / 'out' / 'results.json').read_text())


def rows(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_figures_and_tables_of_a_list(data, capsys):
    hits = {f'a/{number}.png': (number != 0, True) for number in range(5)}
    found = evaluated(data, threshold=0.5, hits=hits)
    assert found['count'] == 5
    assert found['strict'] == {'top1': 0.6, 'top5': 0.8, 'gt_known': 0.8}
    assert found['strict'] == found['paper']
    assert found['classification'] == {'top1': 0.8, 'top5': 1}
    assert found['max_box_acc'] == pytest.approx(0.8)
    assert found['pxap'] > 0.95
    boxes = rows(data / 'out' / 'boxes.csv')
    assert [row['name'] for row in boxes] == [f'a/{number}.png' for number in range(5)]
    assert [row['correct'] for row in boxes] == list('11110')
    assert [float(boxes[0][side]) for side in ('x0', 'y0', 'x1', 'y1')] == [0, 0, 32, 64]
    out = capsys.readouterr().out
    assert 'top1 0.6000, top5 0.8000, gt_known 0.8000 (paper\'s count)' in out
    assert re.search(r'top1 0\.6000 \[0\.\d+, 0\.\d+\], ', out)
    assert 'max_box_acc 0.8000 [0.4000, 1' in out


def test_a_sweep_has_its_curves(data):
    sweep = evaluated(data, sweep=True)['sweep']
    assert sweep['best_threshold'] == 0.27  # the first above the right half's 0.269
    assert [sweep['strict'][k] for k in (20, 50, 90)] == [0, 0.8, 0]


def test_images_without_boxes_get_boxes_and_no_figures(data, capsys):
    (data / 'val.txt').write_text(''.join(f'a/{number}.png,0\n' for number in range(5)))
    found = evaluated(data, threshold=0.5)
    assert 'strict' not in found
    assert found['count'] == 5
    assert 'has no boxes: no localization metrics' in capsys.readouterr().out
    boxes = rows(data / 'out' / 'boxes.csv')
    assert {(row['x1'], row['correct']) for row in boxes} == {('32.00', '')}


def test_boxes_of_nearly_the_whole_image_are_a_warning(data, capsys):
    evaluated(data, threshold=0.5, model=LeftHalf(1.0, 1.0))
    assert 'most boxes cover more than 90 % of the image' in capsys.readouterr().err


def test_a_threshold_is_chosen_on_other_images_with_boxes(data, capsys):
    """A figure beside the one at the threshold in use."""
    other = data / 'other'
    for number in range(3):
        write_image(other / 'image' / f'{number}.png', np.full((64, 64, 3), 40, np.uint8))
    (other / 'val.txt').write_text(''.join(f'{number}.png,0,0 0 32 63\n' for number in range(3)))
    selection, images = cub_images(other, 'val.txt', 1), cub_images(data, 'val.txt', 2)
    check_selection(images, selection)
    found = evaluated(data, selection=selection)
    assert found['strict']['gt_known'] == 0
    assert found['selected']['threshold'] == 0.27
    assert found['selected']['strict']['gt_known'] == 0.8
    assert 'selected 0.27: gt_known 0.8000' in capsys.readouterr().out


def test_a_threshold_is_not_chosen_on_the_images_that_are_tested(data):
    images = cub_images(data, 'val.txt', 2)
    for lines, said in ((['a/4.png,0,0 0 32 63'], '1 images of .* are also tested, such as a/4'),
                        (['a/4.png,0'], 'has no boxes')):
        (data / 'some.txt').write_text('\n'.join(lines))
        message = complaint(check_selection, images, cub_images(data, 'some.txt', 2))
        assert re.search(said, message)


def test_plain_and_fused_cams_have_tables_of_their_own(data, capsys):
    found = evaluated(data, method='class_cams', kinds=('deep', 'fused'),
                      threshold=0.5)['evaluation']
    assert found['fused']['strict']['gt_known'] == 0.8
    assert found['deep']['strict']['gt_known'] == 0  # everywhere 1
    assert {path.name for path in (data / 'out').glob('*.csv')} == {'deep-boxes.csv',
                                                                    'fused-boxes.csv'}
    assert 'plain CAM at threshold 0.5' in capsys.readouterr().out
