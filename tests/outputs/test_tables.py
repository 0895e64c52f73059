"""The printed summary of an evaluation."""

import pytest

from utils.localization.protocol import Localization
from utils.outputs.tables import ImageResult, size_warning, summarize


def metrics(paper, **more):
    return {'count': 4, 'no_contour': 0, 'no_box': 0, 'strict': {'gt_known': 0.5},
            'paper': {'gt_known': paper}, 'max_box_acc': 0.6, 'max_box_acc_v2': None, 'pxap': None,
            **more}


def test_equal_counts_are_one_line():
    assert summarize('SPOL', metrics(0.5), 0.2).splitlines()[1:] == [
        "  gt_known 0.5000 (strict and paper's count)", '  MaxBoxAcc 0.6000']
    assert summarize('SPOL', metrics(0.6), 0.2).splitlines()[1:3] == [
        '  gt_known 0.5000 (strict count)', "  gt_known 0.6000 (paper's count)"]


def test_of_a_sweep_the_best_threshold_is_printed():
    sweep = {'best_threshold': 0.37, 'best': {'strict': {'gt_known': 0.9}}, 'advice': 'try 0.37'}
    lines = summarize('SPOL', metrics(0.5, sweep=sweep), 0.2).splitlines()
    assert lines[-2:] == ['  best threshold 0.37: GT-known 0.9000 (strict)', '  try 0.37']


WHOLE, SMALL, USUAL = (0, 1, 100, 98), (5, 5, 14, 15), (20, 20, 80, 70)


@pytest.mark.parametrize(('boxes', 'gt_known', 'said'), [
    ([WHOLE, WHOLE, USUAL], None, '2 of 3 boxes cover more than 90 %'),
    ([WHOLE, WHOLE, USUAL], 0.1, 'higher --threshold'),
    ([None, SMALL, USUAL], 0.0, '2 of 3 boxes cover less than 1 %'),
    ([WHOLE, WHOLE, USUAL], 0.9, ''),
    ([WHOLE, USUAL], None, ''), ([WHOLE, None, USUAL], None, ''), ([], None, '')])
def test_boxes_of_an_unlikely_size_are_warned_of(boxes, gt_known, said):
    records = {index: ImageResult((50, 60), True, Localization(box, 0.0))
               for index, box in enumerate(boxes)}
    known = {} if gt_known is None else {'strict': {'gt_known': gt_known}}
    warning = size_warning(records, known, 100)
    assert said in warning
    assert bool(said) == bool(warning)
