"""What a run records, and what is read of it again."""

import json
from pathlib import Path

import numpy as np

from utils.data.lists import ImageList
from utils.outputs.results import RunFolder
from utils.stages.run_settings import (
    recorded_class_names,
    recorded_settings,
    training_settings,
)

NAMES = np.array(['zebra/a 1.jpg', 'ant/b,2.jpg', 'n01/deep/c.JPEG', 'zebra/d.jpg', 'e.jpg'])
LABELS = np.array([2, 0, 4, 2, 3])


def test_class_names_are_the_first_folders():
    assert ImageList(NAMES, LABELS, None, Path()).class_names == [
        'ant', 'class 1', 'zebra', 'class 3', 'n01']


def test_a_model_is_described_by_the_file_beside_it(tmp_path):
    arguments = {'backbone': 'timm/x', 'resize': 166, 'lr': 0.1, 'datapath': Path('data')}
    RunFolder(tmp_path, arguments, ['ant', 'bee']).describe_model(tmp_path / 'model-3')
    found = training_settings(tmp_path / 'model-3')
    assert found.keys() == {'backbone', 'resize', 'datapath', 'class_names', 'versions', 'commit'}
    assert (found['resize'], found['datapath']) == (166, 'data')
    assert recorded_class_names(tmp_path / 'model-3') == {0: 'ant', 1: 'bee'}
    assert recorded_class_names(tmp_path / 'model-4') == {}


def test_predictions_use_the_trainings_sizes_and_the_last_tests_threshold(tmp_path):
    defaults = {'backbone': 'resnet50', 'resize': 256, 'threshold': 0.2, 'seed': 7}
    (tmp_path / 'results.json').write_text(json.dumps({
        'training': {'arguments': {'resize': 166, 'backbone': None}},
        'arguments': {'resize': 256, 'threshold': 0.35}}))
    assert recorded_settings(tmp_path / 'model-1', defaults) == {
        'backbone': 'resnet50', 'resize': 166, 'threshold': 0.35, 'seed': 7}
    RunFolder(tmp_path, {'resize': 96, 'threshold': 0.8}).describe_model(tmp_path / 'model-1')
    assert recorded_settings(tmp_path / 'model-1', defaults, {'backbone': 'x', 'seed': None}) == {
        'backbone': 'x', 'resize': 96, 'threshold': 0.35, 'seed': 7}
    (tmp_path / 'results.json').unlink()
    assert recorded_settings(tmp_path / 'model-1', defaults)['threshold'] == 0.8
