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
from utils.lists import cub_images
from utils.localization import (
    check_selection,
    evaluate_cams,
    evaluate_segmentation,
    size_warning,
    summary,
)
from utils.results import RunFolder

CROP = CentreCrop(64)
OPTIONS = dict(threshold=0.2, sweep=False, metrics='all', save_maps=False, batch_size=2,
               num_workers=1, skip_bad=False)


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


def evaluated(data, run='out', hits=None, selection=None, model=None, **changes):
    """results.json of an evaluation."""
    (data / run).mkdir(exist_ok=True)
    predict = Predictor(model or LeftHalf(), torch.device('cpu'))
    evaluate_segmentation(predict, cub_images(data, 'val.txt', 2), CROP,
                          Namespace(**{**OPTIONS, **changes}), RunFolder(data / run), hits,
                          selection)
    return json.loads((data / run / 'results.json').read_text())


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
    assert rows(data / 'out' / 'classes.csv') == [
        {'label': '0', 'images': '3', 'top1': '0.333333', 'top5': '0.666667',
         'gt_known': '0.666667'},
        {'label': '1', 'images': '2', 'top1': '1.0', 'top5': '1.0', 'gt_known': '1.0'}]
    out = capsys.readouterr().out
    assert 'top1 0.6000, top5 0.8000, gt_known 0.8000 (strict and paper\'s count)' in out
    assert re.search(r'95% intervals: top1 0\.\d+ to 0\.\d+, .*MaxBoxAcc 0\.4000 to 1', out)


@pytest.mark.parametrize('batch_size', [1, 3, 5])
def test_the_figures_do_not_depend_on_the_batches(data, batch_size):
    first, second = evaluated(data, 'a'), evaluated(data, 'b', batch_size=batch_size)
    for found in (first, second):
        for name in ('seconds', 'images_per_second', 'arguments', 'versions'):
            del found[name]
    assert first == second


def test_the_paper_needs_one_pass_and_gives_no_benchmark(data):
    found = evaluated(data, metrics='paper', threshold=0.5)
    assert found['strict']['gt_known'] == 0.8
    assert (found['max_box_acc'], found['pxap']) == (None, None)
    assert 'leave out --metrics paper' in complaint(evaluated, data, metrics='paper',
                                                    save_maps=True)


def test_a_sweep_writes_its_curves(data):
    found = evaluated(data, sweep=True)
    sweep = rows(data / 'out' / 'sweep.csv')
    assert [float(row['strict']) for row in sweep] == pytest.approx(found['sweep']['strict'])
    assert found['sweep']['best_threshold'] == 0.27  # the first above the right half's 0.269
    assert [float(sweep[k]['strict']) for k in (20, 50, 90)] == [0, 0.8, 0]
    assert (data / 'out' / 'sweep.png').read_bytes().startswith(b'\x89PNG')


def test_maps_are_written_where_they_are_wanted(data):
    evaluated(data, save_maps=True)
    found = np.load(data / 'out' / 'maps' / 'a' / '3.png.npy', allow_pickle=False)
    assert (found.shape, found.dtype) == ((224, 224), np.float32)
    np.testing.assert_allclose(found[:, [0, 100, 130, 223]],
                               np.tile([0.731, 0.731, 0.269, 0.269], (224, 1)), atol=1e-3)


def test_images_without_boxes_get_boxes_and_no_figures(data, capsys):
    (data / 'val.txt').write_text(''.join(f'a/{number}.png,0\n' for number in range(5)))
    found = evaluated(data, threshold=0.5)
    assert 'strict' not in found
    assert found['count'] == 5
    assert 'has no boxes: no localization metrics' in capsys.readouterr().out
    boxes = rows(data / 'out' / 'boxes.csv')
    assert {(row['x1'], row['iou'], row['correct']) for row in boxes} == {('32.00', '', '')}
    assert not (data / 'out' / 'classes.csv').exists()


def test_a_map_of_zeros_has_no_box(data):
    """Rather than the box of the whole image."""
    found = evaluated(data, model=LeftHalf(-200.0, -200.0), threshold=0.0)
    assert (found['no_contour'], found['strict']['gt_known']) == (5, 0)
    assert {row['x0'] for row in rows(data / 'out' / 'boxes.csv')} == {''}


def test_masks_that_are_no_masks_end_the_evaluation(data):
    write_image(data / 'segmentation' / 'a' / '2.png', np.array([[1, 2], [2, 3]], np.uint8))
    assert 'a/2.png has the values 1, 2, 3' in complaint(evaluated, data)
    write_image(data / 'segmentation' / 'a' / '2.png', np.zeros((20, 64), np.uint8))
    assert '64 x 20 pixels' in complaint(evaluated, data)


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
    assert 'at threshold 0.27, chosen on the images of --select' in capsys.readouterr().out


def test_a_threshold_is_not_chosen_on_the_images_that_are_tested(data):
    images = cub_images(data, 'val.txt', 2)
    for lines, said in ((['a/4.png,0,0 0 32 63'], '1 images of .* are also tested, such as a/4'),
                        (['a/4.png,0'], 'has no boxes')):
        (data / 'some.txt').write_text('\n'.join(lines))
        message = complaint(check_selection, images, cub_images(data, 'some.txt', 2))
        assert re.search(said, message)


def test_the_papers_threshold_is_reported_beside_another(data):
    found = evaluated(data, threshold=0.5, paper_threshold=0.2)
    assert found['strict']['gt_known'] == 0.8
    assert found['paper_threshold']['threshold'] == 0.2
    assert found['paper_threshold']['strict']['gt_known'] == 0
    assert 'paper_threshold' not in evaluated(data, threshold=0.2, paper_threshold=0.2)


def test_plain_and_fused_cams_have_tables_of_their_own(data, capsys):
    predict = Predictor(LeftHalf(), torch.device('cpu'), method='class_cams')
    (data / 'out').mkdir()
    evaluate_cams(predict, ('deep', 'fused'), cub_images(data, 'val.txt', 2), CROP,
                  Namespace(**{**OPTIONS, 'sweep': True, 'threshold': 0.5}), RunFolder(data / 'out'))
    found = json.loads((data / 'out' / 'results.json').read_text())['evaluation']
    assert found['fused']['strict']['gt_known'] == 0.8
    assert found['deep']['strict']['gt_known'] == 0  # everywhere 1
    for kind in ('deep', 'fused'):
        assert {f'{kind}-{name}.csv' for name in ('boxes', 'classes', 'sweep')} < {
            path.name for path in (data / 'out').iterdir()}
    assert 'plain CAM at threshold 0.5' in capsys.readouterr().out


def metrics(paper, **more):
    return {'count': 4, 'no_contour': 0, 'no_box': 0, 'strict': {'gt_known': 0.5},
            'paper': {'gt_known': paper}, 'max_box_acc': 0.6, 'max_box_acc_v2': None, 'pxap': None,
            'intervals': {'strict': {'gt_known': (0.2, 0.8)}, 'confidence': 0.95}, **more}


def test_equal_counts_are_one_line():
    assert summary('SPOL', metrics(0.5), 0.2).splitlines()[1:] == [
        "  gt_known 0.5000 (strict and paper's count)", '  MaxBoxAcc 0.6000',
        '  95% intervals: gt_known 0.2000 to 0.8000']
    sweep = {'best_threshold': 0.37, 'best': {'strict': {'gt_known': 0.9}}, 'advice': None}
    lines = summary('SPOL', metrics(0.6, sweep=sweep), 0.2).splitlines()
    assert lines[1:3] == ['  gt_known 0.5000 (strict count)', "  gt_known 0.6000 (paper's count)"]
    assert '  best threshold 0.37: GT-known 0.9000 (strict)' in lines


WHOLE, SMALL, USUAL, NONE = (0, 1, 100, 98), (5, 5, 14, 15), (20, 20, 80, 70), (-1, -1, -1, -1)


@pytest.mark.parametrize(('boxes', 'gt_known', 'said'), [
    ([WHOLE, WHOLE, USUAL], None, '2 of 3 boxes cover more than 90 %'),
    ([WHOLE, WHOLE, USUAL], 0.1, 'higher --threshold'),
    ([NONE, SMALL, USUAL], 0.0, '2 of 3 boxes cover less than 1 %'),
    ([WHOLE, WHOLE, USUAL], 0.9, ''), ([WHOLE, USUAL], None, '')])
def test_boxes_of_an_unlikely_size_are_warned_of(boxes, gt_known, said):
    known = {} if gt_known is None else {'strict': {'gt_known': gt_known}}
    warning = size_warning(np.array(boxes, np.int16), known, 100)
    assert said in warning
    assert bool(said) == bool(warning)
