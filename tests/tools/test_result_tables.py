"""The records of measurements, and the tables made from them."""

import json
import subprocess

import pytest
from conftest import ROOT

from tools import records, results
from utils.errors import InputError

DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def record(gt_known, best=0.9, field=0.5, pxap=0.5):
    """An evaluation as results.json has it."""
    return {'strict': {'gt_known': gt_known}, 'max_box_acc': field, 'max_box_acc_v2': field,
            'pxap': pxap, 'sweep': {'best': {'strict': {'gt_known': best}}}}


@pytest.fixture
def demo_run(tmp_path):
    """demo_run(seed, GT-known of SPOL): a finished run of demo.sh --data on `birds`."""
    def make(seed, value, split='train', pxap=0.5):
        name = 'birds' if split == 'train' else f'birds-{split}'
        arguments = {'datapath': str(tmp_path / 'birds'), 'seed': seed,
                     'list': f'/lists/{split}.txt'}
        training = {'training': {'arguments': arguments, 'seconds': 3}}
        maps = {'deep': record(value - 0.4, pxap=pxap), 'fused': record(value - 0.2, pxap=pxap),
                'seconds': 2}
        for stage, content in (('cls', {'top1': 0.9}), ('cam', {'evaluation': maps}),
                               ('seg', record(value, pxap=pxap))):
            path = tmp_path / f'cub200-{stage}' / 'out' / name / 'results.json'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**content, **training, 'versions': {'torch': '2.14'},
                                        'seconds': 1,
                                        'arguments': {**arguments, 'list': '/lists/val.txt'}}))
        return results.collect(name, 'abc', tmp_path, tmp_path / 'results')

    return make


def test_mean_and_sample_standard_deviation():
    assert records.mean_and_std([1, 2, 3]) == (2, 1)
    assert records.mean_and_std([5]) == (5, 0)


def test_a_run_of_the_demo_is_recorded(demo_run):
    path = demo_run(2, 0.8)
    written = json.loads(path.read_text())
    assert path.name == 'birds-demo-2.json'
    assert written['metrics']['SPOL'] == {'GT-known': 80, 'best threshold': 90, 'MaxBoxAcc': 50,
                                          'MaxBoxAccV2': 50, 'PxAP': 50}
    assert written['metrics']['classifier'] == {'Top-1': 90}
    assert written['command'] == 'bash demo.sh --data birds --seed 2'
    assert written['seconds'] == 14
    assert written['processor']
    listed = json.loads(demo_run(2, 0.8, 'few').read_text())
    assert (listed['set'], listed['command']) == (
        'birds-few', 'bash demo.sh --data birds --train few.txt --seed 2')


def test_a_run_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(InputError, match='no complete run'):
        results.collect('birds', 'abc', tmp_path, tmp_path / 'results')


def test_tables_are_rendered_between_their_markers(demo_run, tmp_path):
    demo_run(0, 0.8)
    demo_run(1, 0.9)
    text = 'before\n<!-- results: birds -->\nold\n<!-- end -->\nafter\n'
    new = results.rendered(text, tmp_path / 'results')
    assert '| SPOL | 85.0 ± 7.1 | 90.0 ± 0.0 |' in new
    assert 'seeds 0, 1; Top-1 of the classifier 90.0 ± 0.0 %' in new
    assert '\nold\n' not in new
    assert new.startswith('before\n<!-- results: birds -->\n| ')
    assert new.endswith('\n<!-- end -->\nafter\n')
    assert results.rendered(new, tmp_path / 'results') == new


def test_several_sets_are_one_table(demo_run, tmp_path):
    demo_run(0, 0.8)
    demo_run(0, 0.6, 'few')
    text = results.rendered('<!-- results: birds,birds-few -->\n<!-- end -->', tmp_path / 'results')
    assert '| SPOL (birds) | 80.0 |' in text
    assert '| SPOL (birds-few) | 60.0 |' in text
    assert 'Top-1 of the classifier (birds) 90.0 %' in text


def test_tables_leave_out_what_has_no_ground_truth(demo_run, tmp_path):
    demo_run(0, 0.8, pxap=None)
    text = results.rendered('<!-- results: birds -->\n<!-- end -->', tmp_path / 'results')
    assert 'PxAP' not in text
    assert '| SPOL | 80.0 | 90.0 | 50.0 | 50.0 |' in text  # one seed: no deviation


def test_a_table_without_records_is_refused(tmp_path):
    with pytest.raises(InputError, match='no record of demo on birds'):
        results.rendered('<!-- results: birds -->\n<!-- end -->', tmp_path)


def test_recorded_seeds_are_not_run_again(tmp_path, monkeypatch):
    (tmp_path / 'drawn-demo-0.json').write_text('{}')
    monkeypatch.setattr(records, 'RESULTS', tmp_path)
    monkeypatch.setattr(subprocess, 'run', None)  # would fail if called
    results.run_seeds([0], None, 'train.txt', 'val.txt', None)


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_documents_show_what_was_recorded(path):
    """After a new record: python tools/results.py render."""
    text = path.read_text()
    assert results.rendered(text) == text


def test_every_record_has_its_source():
    for path in records.RESULTS.glob('*.json'):
        content = json.loads(path.read_text())
        assert path.name == f'{content["set"]}-{content["name"]}-{content["seed"]}.json'
        assert {'metrics', 'command', 'commit', 'versions', 'processor', 'seconds',
                'date'} <= content.keys()
