"""The records of measurements, the tables made from them, and the report on a run."""

import json
import subprocess
from argparse import Namespace
from pathlib import Path

import cv2
import pytest
from conftest import ROOT, complaint

from tools import results

DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
RULE = {'threshold': 0.93, 'threshold_rule': 'without boxes'}


def evaluation(gt_known, best=0.9, field=0.5, pxap=0.5):
    """An evaluation as results.json has it."""
    return {'strict': {'gt_known': gt_known, 'top1': None, 'top5': None}, 'max_box_acc': field,
            'max_box_acc_v2': field, 'pxap': pxap,
            'sweep': {'best': {'strict': {'gt_known': best}}, 'best_threshold': 0.5}}


@pytest.fixture
def demo_run(tmp_path):
    """demo_run(seed, GT-known of SPOL at 0.2): a finished run of demo.sh on `birds`; its record."""
    def make(seed, value, name='birds', split='train', pxap=0.5, chosen=0.93, rule=RULE):
        data = tmp_path / 'data' / 'birds'
        data.mkdir(parents=True, exist_ok=True)
        for lines in (split, 'val'):
            (data / f'{lines}.txt').write_text('a.jpg,0,0 0 9 9\n')
        model = tmp_path / 'cub200-seg' / 'out' / name / 'model-4'
        arguments = {'datapath': str(data), 'seed': seed, 'list': str(data / f'{split}.txt'),
                     'threshold': chosen, 'snapshot': str(model)}
        tested = {'versions': {'torch': '2.14'}, 'seconds': 1,
                  'arguments': {**arguments, 'list': str(data / 'val.txt')}}
        maps = {'deep': evaluation(value - 0.4, pxap=pxap), 'seconds': 2,
                'fused': evaluation(value - 0.2, pxap=pxap), 'arguments': tested['arguments']}
        seg = evaluation(value if chosen == 0.2 else value + 0.05, pxap=pxap)
        if chosen != 0.2:
            strict = {'gt_known': value, 'top1': 0.6, 'top5': 0.7}
            seg['paper_threshold'] = {'threshold': 0.2, 'strict': strict}
        for stage, content in (('cls', {'top1': 0.9}), ('cam', {'evaluation': maps}),
                               ('seg', seg)):
            folder = tmp_path / f'cub200-{stage}' / 'out' / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / 'results.json').write_text(json.dumps(
                {**content, **tested, 'training': {'arguments': arguments, 'seconds': 3}}))
        Path(f'{model}.json').write_text(json.dumps(rule))
        return results.collect(name, 'abc', tmp_path, tmp_path / 'results')

    return make


def rendered(tmp_path, sets):
    return results.rendered(f'a\n<!-- results: {sets} -->\nold\n<!-- end -->\nb\n',
                            tmp_path / 'results')


def test_mean_and_sample_standard_deviation():
    assert results.mean_and_std([1, 2, 3]) == (2, 1)
    assert results.mean_and_std([5]) == (5, 0)


# ---------------------------------------------------------------- records


def test_a_run_of_the_demo_is_recorded(demo_run, tmp_path):
    path = demo_run(2, 0.8)
    written = json.loads(path.read_text())
    assert path.name == 'birds-demo-2.json'
    assert written['metrics']['SPOL'] == {
        'GT-known': 80, 'auto threshold': 85, 'threshold': 0.93, 'best threshold': 90,
        'MaxBoxAcc': 50, 'MaxBoxAccV2': 50, 'PxAP': 50, 'Top-1 localization': 60,
        'Top-5 localization': 70}
    assert written['metrics']['classifier'] == {'Top-1': 90}
    assert written['command'] == 'bash demo.sh --data birds --seed 2'
    assert written['seconds'] == 14
    assert written['lists'] == results.digests(tmp_path / 'data' / 'birds', 'train.txt', 'val.txt')


@pytest.mark.parametrize(('options', 'command'), [
    (dict(name='birds-few', split='few'), '--data birds --train few.txt'),
    (dict(name='mine'), '--data birds --name mine'),
])
def test_the_command_names_lists_and_run(demo_run, options, command):
    written = json.loads(demo_run(2, 0.8, **options).read_text())
    assert (written['set'], written['command']) == (
        options['name'], f'bash demo.sh {command} --seed 2')


@pytest.mark.parametrize(('options', 'expected'), [
    (dict(chosen=0.2, rule={**RULE, 'threshold': 0.2}), (80, 80, 0.2)),  # there is no 0.2 beside it
    (dict(rule={}), (80, None, None)),  # the threshold was given
])
def test_only_a_threshold_chosen_without_boxes_is_called_so(demo_run, options, expected):
    spol = json.loads(demo_run(0, 0.8, **options).read_text())['metrics']['SPOL']
    assert (spol['GT-known'], spol.get('auto threshold'), spol.get('threshold')) == expected


def test_a_run_without_an_evaluation_is_refused(tmp_path):
    assert 'no complete run' in complaint(results.collect, 'birds', 'abc', tmp_path, tmp_path)


def seeds(data, val='val.txt'):
    return Namespace(data=data, train='train.txt', val=val, seeds=[0])


@pytest.fixture
def demo_calls(tmp_path, monkeypatch):
    """The commands that `run_seeds` runs, which fail."""
    calls = []

    def fail(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(results, 'RESULTS', tmp_path / 'results')
    monkeypatch.setattr(results, 'commit', lambda: 'abc')
    monkeypatch.setattr(subprocess, 'run', fail)
    return calls


def test_recorded_seeds_are_not_run_again(demo_run, demo_calls, tmp_path):
    demo_run(0, 0.8)
    data = tmp_path / 'data' / 'birds'
    results.run_seeds(seeds(data), 'birds')
    assert not demo_calls
    assert 'exit code 3' in complaint(results.run_seeds, seeds(data), 'other')
    assert demo_calls[0][2:] == ['--seed', '0', '--name', 'other', '--data', str(data), '--train',
                                 'train.txt', '--val', 'val.txt']


@pytest.mark.parametrize('change', ['val', 'folder'])
def test_a_record_of_other_lists_is_not_taken_for_this_one(demo_run, demo_calls, tmp_path, change):
    demo_run(0, 0.8)
    data, val = tmp_path / 'data' / 'birds', 'other.txt'
    if change == 'folder':
        data, val = tmp_path / 'elsewhere' / 'birds', 'val.txt'
        data.mkdir(parents=True)
        (data / 'train.txt').write_text('other.jpg,0,0 0 5 5\n')
    (data / val).write_text('b.jpg,0,0 0 9 9\n')
    assert 'a record of other lists' in complaint(results.run_seeds, seeds(data, val), 'birds')
    assert not demo_calls


def test_records_of_earlier_versions_are_measured_again(demo_run, demo_calls, tmp_path):
    path = demo_run(0, 0.8)
    path.write_text(json.dumps({**json.loads(path.read_text()), 'lists': None}))
    assert 'exit code 3' in complaint(
        results.run_seeds, seeds(tmp_path / 'data' / 'birds'), 'birds')


@pytest.mark.parametrize(('change', 'free'), [
    ({}, True),
    (dict(name='other', data='elsewhere/birds'), True),
    (dict(data='elsewhere/birds'), False),
    (dict(train='few.txt'), False),
    (dict(val='few.txt'), False),
])
def test_a_run_of_other_data_or_lists_is_not_overwritten(demo_run, tmp_path, change, free):
    demo_run(0, 0.8)
    data = tmp_path / change.get('data', 'data/birds')
    data.mkdir(parents=True, exist_ok=True)
    args = Namespace(dataset='cub200', data=data, train=change.get('train', 'train.txt'),
                     val=change.get('val', 'val.txt'))
    name = change.get('name', 'birds')
    if free:
        results.check(args, name, tmp_path)
    else:
        assert '--name' in complaint(results.check, args, name, tmp_path)


# ---------------------------------------------------------------- tables


def test_tables_are_rendered_between_their_markers(demo_run, tmp_path):
    demo_run(0, 0.8)
    demo_run(1, 0.9)
    new = rendered(tmp_path, 'birds')
    assert '| SPOL | 85.0 ± 7.1 | 90.0 ± 7.1 | 90.0 ± 0.0 |' in new
    assert 'seeds 0, 1; t = 0.93, chosen on training images without boxes; Top-1 of the ' \
           'classifier 90.0 ± 0.0 %' in new
    assert '\nold\n' not in new
    assert new.startswith('a\n<!-- results: birds -->\n| ')
    assert new.endswith('\n<!-- end -->\nb\n')
    assert results.rendered(new, tmp_path / 'results') == new


def test_several_sets_are_one_table(demo_run, tmp_path):
    demo_run(0, 0.8)
    demo_run(0, 0.6, name='few')
    text = rendered(tmp_path, 'birds,few')
    assert '| SPOL (birds) | 80.0 |' in text
    assert '| SPOL (few) | 60.0 |' in text
    assert 'Top-1 of the classifier (birds) 90.0 %' in text


def test_columns_without_values_are_left_out(demo_run, tmp_path):
    demo_run(0, 0.8, pxap=None, chosen=0.2, rule={})
    head = rendered(tmp_path, 'birds').splitlines()[2]
    assert head == '|  | GT-known at 0.2 | GT-known, best threshold | MaxBoxAcc | MaxBoxAccV2 |'


def test_a_metric_that_one_seed_lacks_is_left_out(demo_run, tmp_path):
    demo_run(0, 0.8)
    demo_run(1, 0.9, rule={})
    assert 'GT-known at t' not in rendered(tmp_path, 'birds')


def test_a_table_without_records_is_refused(tmp_path):
    assert 'no record of demo on birds' in complaint(rendered, tmp_path, 'birds')


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_documents_show_what_was_recorded(path):
    """After a new record: python tools/results.py render."""
    text = path.read_text()
    assert results.rendered(text) == text


def test_every_record_has_its_source():
    for path in results.RESULTS.glob('*.json'):
        content = json.loads(path.read_text())
        assert path.name == f'{content["set"]}-{content["name"]}-{content["seed"]}.json'
        assert {'metrics', 'command', 'commit', 'versions', 'processor', 'seconds',
                'date'} <= content.keys()


# ---------------------------------------------------------------- the report


def test_the_report_shows_both_thresholds():
    seg = {**evaluation(0.85), 'arguments': {'threshold': 0.93, 'snapshot': 'model-4'},
           'paper_threshold': {'threshold': 0.2, 'strict': {'gt_known': 0.8, 'top1': 0.6}}}
    cams = {'fused': evaluation(0.7), 'arguments': {'threshold': 0.2}}
    lines = results.localization(cams, seg).splitlines()
    assert lines[2:] == ['| fused CAM, at 0.2 |  | 70.0 | 90.0 (at 0.50) | 50.0 | 50.0 | 50.0 |',
                         '| SPOL, at 0.2 | 60.0 | 80.0 | 90.0 (at 0.50) | 50.0 | 50.0 | 50.0 |',
                         '| SPOL, at 0.93 |  | 85.0 | 90.0 (at 0.50) | 50.0 | 50.0 | 50.0 |']


def test_parts_and_precision_of_pseudo_masks(tiny_project):
    """The masks are the true ones, a quarter of each image."""
    data = tiny_project / 'data'
    text = results.mask_quality('cub200', {'datapath': str(data), 'list': 'train.txt',
                                           'clsnum': 2, 'maskpath': str(data / 'mask')})
    assert 'foreground 25 %, background 75 %, ignored 0 % of the pixels; 0 images' in text
    assert 'foreground precision 100.0 %, recall 100.0 %; background precision 100.0 %' in text


def test_an_incomplete_run_is_not_reported(tmp_path):
    assert 'no complete run' in complaint(results.report, 'cub200', 'mini', tmp_path)


@pytest.mark.end_to_end
def test_a_run_is_reported(stage, project, capsys):
    (project / 'cub200-seg' / 'out' / 'top1top5.npy').unlink(missing_ok=True)
    for arguments in (('cls', 'test'), ('cam', 'test', '--evaluate', '--sweep'),
                      ('cam', 'test', '--maskpath', project / 'new-masks', '--show', 0),
                      ('seg', 'test', '--sweep', '--threshold', 0.5)):
        code, _, said = stage(*arguments)
        assert code == 0, said
    results.report('cub200', '.', project)
    printed = capsys.readouterr().out
    assert 'classification: top-1 ' in printed
    assert 'SPOL, at 0.2 |' in printed
    assert 'SPOL, at 0.5 |' in printed
    left, right, joined = (cv2.imread(str(project / name)).shape for name in (
        'cub200-cam/out/show.png', 'cub200-seg/out/show.png', 'cub200-seg/out/report.png'))
    assert joined[0] == left[0] == right[0]
    assert joined[1] * 10 == (left[1] + right[1]) * 8  # columns: 6 and 4, of which 8 are shown
