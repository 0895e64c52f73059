"""What a run records, and what is read of it again."""

import json
import re
from pathlib import Path

from utils.results import RunFolder, recorded_fusion, training_settings

ARGUMENTS = {'stage': 'cub200-cam', 'backbone': 'timm/x', 'resize': 166, 'crop': 144, 'lr': 0.1,
             'clsnum': 2, 'list': 'train.txt', 'datapath': Path('data'), 'seed': 0,
             'stages': '45', 'fusion': 'add', 'no_attention': True, 'no_distillation': True}


def test_a_model_is_described_by_the_file_beside_it(tmp_path):
    RunFolder(tmp_path, ARGUMENTS, ['ant', 'bee']).describe_model(tmp_path / 'model-3')
    found = training_settings(tmp_path / 'model-3')
    assert found.pop('versions')['python']
    assert re.fullmatch('[0-9a-f]{40}|None', str(found.pop('commit')))
    assert found == {'datapath': 'data', 'class_names': ['ant', 'bee'], **{
        name: value for name, value in ARGUMENTS.items()
        if name not in ('datapath', 'lr', 'no_distillation')}}
    assert recorded_fusion(tmp_path / 'model-3') == {'stages': '45', 'fusion': 'add',
                                                     'attention': False}
    assert recorded_fusion(tmp_path / 'model-4') == {'stages': '345', 'fusion': 'multiply',
                                                     'attention': True}


def test_each_model_has_its_own_settings(tmp_path):
    """A threshold that was chosen for model-8 is not that of model-4, nor that of the last test."""
    for number, threshold in ((4, 0.2), (8, 0.7)):
        (tmp_path / f'model-{number}.json').write_text(json.dumps({'threshold': threshold}))
    (tmp_path / 'results.json').write_text(json.dumps({'arguments': {'threshold': 0.9}}))
    assert [training_settings(tmp_path / f'model-{number}').get('threshold')
            for number in (4, 8, 9)] == [0.2, 0.7, None]
