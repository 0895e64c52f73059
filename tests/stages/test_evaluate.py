"""The evaluation as a chain of functions, each used alone: without a network, and without a run."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from utils.data.lists import read_cub_list
from utils.engine.inference import Inference, InferenceOptions
from utils.errors import InputError
from utils.localization.boxes import CentreCrop
from utils.localization.measurement import ScoreMaps
from utils.localization.metrics import BENCHMARK_SIDE
from utils.outputs.bad_images import BadImages
from utils.outputs.results import RunFolder
from utils.outputs.tables import print_summary, write_tables
from utils.stages.evaluate import accumulate, choose_thresholds, merge
from utils.stages.score_maps import measure_batch, measure_list

CROP = CentreCrop(64)
THRESHOLDS = np.array([0.2, 0.5])


@pytest.fixture
def images(tmp_path):
    """Five grey images of 64 x 64 whose left half is the object; the last one's box is wrong."""
    lines = []
    for number in range(5):
        name = f'a/{number}.png'
        (tmp_path / 'image' / 'a').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'image' / name), np.full((64, 64, 3), 40, np.uint8))
        lines.append(f'{name},0,{"0 0 32 64" if number < 4 else "40 0 64 64"}')
    (tmp_path / 'list.txt').write_text('\n'.join(lines) + '\n')
    return read_cub_list(tmp_path / 'list.txt', 1, tmp_path / 'image')


def left_half(side: int) -> np.ndarray:
    score_map = np.zeros((side, side), np.float32)
    score_map[:, :side // 2] = 0.4
    return score_map


def score(batch: dict) -> dict[str, list[ScoreMaps]]:
    """Maps of a method that has no network."""
    whole = left_half(BENCHMARK_SIDE) if 'whole' in batch else None
    return {'SPOL': [ScoreMaps(left_half(64), whole) for _ in batch['index']]}


def measured(images, tmp_path, **options):
    inference = Inference(torch.device('cpu'), InferenceOptions(batch_size=2))
    bad = BadImages(images, tmp_path / 'bad_images.txt')
    return measure_list(score, images, CROP, inference, THRESHOLDS, bad, **options)


@pytest.fixture
def results(images, tmp_path):
    return accumulate(measured(images, tmp_path), ['SPOL'], THRESHOLDS, 0.2)


def test_a_list_is_measured_and_accumulated(results):
    metrics = results['SPOL'].compute(0.2)
    assert metrics['count'] == 5
    assert metrics['strict']['gt_known'] == metrics['max_box_acc'] == pytest.approx(0.8)
    assert results['SPOL'].compute(0.5)['no_contour'] == 5
    assert results['SPOL'].records[0].localization.box == (0, 0, 32, 64)


def test_a_batch_is_measured_alone(images):
    batch = {'index': torch.tensor([4, 1]), 'size': torch.tensor([[64, 64]] * 2)}
    (_, wrong), (_, right) = measure_batch(score(batch), batch, images, CROP, THRESHOLDS)
    assert (wrong.index, right.index) == (4, 1)
    assert [image.localizations[0].correct for image in (wrong, right)] == [False, True]
    assert right.ious is None  # the whole image is not in the batch


def test_parts_of_a_list_are_merged(images, tmp_path, results):
    measurements = list(measured(images, tmp_path))
    parts = [accumulate(part, ['SPOL'], THRESHOLDS, 0.2)
             for part in (measurements[1::2], measurements[::2])]
    merged = merge(parts)['SPOL']
    assert merged.compute(0.2) == results['SPOL'].compute(0.2)
    assert merged.records == results['SPOL'].records


def test_maps_are_written_where_they_are_wanted(images, tmp_path):
    list(measured(images, tmp_path, map_folder=tmp_path / 'maps'))
    np.testing.assert_array_equal(np.load(tmp_path / 'maps' / 'a' / '3.png.npy'),
                                  left_half(BENCHMARK_SIDE))


@pytest.mark.parametrize(('kind', 'prefix'), [('SPOL', ''), ('fused', 'fused-')])
def test_tables_and_summary_need_no_run(images, tmp_path, results, capsys, kind, prefix):
    records = {kind: results['SPOL'].records}
    metrics = {kind: results['SPOL'].compute(0.2, sweep=True)}
    write_tables(RunFolder(tmp_path), images, CROP, records, metrics)
    assert len((tmp_path / f'{prefix}boxes.csv').read_text().splitlines()) == 6
    assert (tmp_path / f'{prefix}classes.csv').read_text().splitlines()[1] == '0,5,,,0.8'
    for name in (f'{prefix}sweep.csv', 'sweep.png'):
        assert (tmp_path / name).is_file()
    print_summary(metrics, images, 0.2)
    out = capsys.readouterr().out
    assert 'gt_known 0.8000' in out
    assert re.search(r'95% intervals: gt_known 0\.4000 to 1\.0000, MaxBoxAcc 0\.4000 to 1', out)


def test_a_threshold_is_chosen_on_a_list(images, tmp_path):
    """The whole image at 0.5, its left half, the object of four of five images, at 1."""
    def score_halves(batch: dict) -> dict[str, list[ScoreMaps]]:
        return {'SPOL': [ScoreMaps(0.5 + left_half(64)) for _ in batch['index']]}

    inference = Inference(torch.device('cpu'), InferenceOptions(batch_size=2))
    chosen = choose_thresholds(score_halves, ('SPOL',), images, CROP, inference,
                               RunFolder(tmp_path))
    assert chosen == {'SPOL': 0.5}   # the first above which the right half is background
    unboxed = replace(images, boxes=None)
    with pytest.raises(InputError, match='no boxes: choose a list'):
        choose_thresholds(score_halves, ('SPOL',), unboxed, CROP, inference, RunFolder(tmp_path))
