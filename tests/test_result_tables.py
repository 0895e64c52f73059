"""The records of measurements, the tables made from them, and the report on a run."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
from conftest import ROOT, complaint

from tools import results

DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
RULE = {'threshold': 0.93, 'threshold_rule': 'without boxes'}


def evaluation(gt_known, pxap):
    """An evaluation as results.json has it."""
    return {'strict': {'gt_known': gt_known, 'top1': None, 'top5': None}, 'max_box_acc': 0.5,
            'max_box_acc_v2': 0.5, 'pxap': pxap,
            'sweep': {'best': {'strict': {'gt_known': 0.9}}, 'best_threshold': 0.5}}


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
                     'threshold': chosen, 'snapshot': str(model), 'maskpath': 'mask'}
        tested = {'versions': {'torch': '2.14'}, 'seconds': 1, 'count': 4,
                  'arguments': {**arguments, 'list': str(data / 'val.txt')}}
        maps = {'deep': evaluation(value - 0.4, pxap), 'seconds': 2,
                'fused': evaluation(value - 0.2, pxap), 'arguments': tested['arguments']}
        seg = evaluation(value if chosen == 0.2 else value + 0.05, pxap)
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
        return results.collect(name, tmp_path, tmp_path / 'results')

    return make


def rendered(tmp_path, sets):
    return results.rendered(f'a\n<!-- results: {sets} -->\nold\n<!-- end -->\nb\n',
                            tmp_path / 'results')


# ---------------------------------------------------------------- records


def test_a_run_without_the_plain_cam_has_its_other_rows(demo_run, tmp_path):
    """As on ImageNet."""
    demo_run(0, 0.8)
    path = tmp_path / 'cub200-cam' / 'out' / 'birds' / 'results.json'
    content = json.loads(path.read_text())
    del content['evaluation']['deep']
    path.write_text(json.dumps(content))
    stages = results.complete_results('cub200', 'birds', tmp_path)
    assert list(results.metrics_of_run(*stages)) == ['fused CAM', 'SPOL', 'classifier']
    del content['evaluation']['fused']['sweep']
    path.write_text(json.dumps(content))
    assert '--sweep' in complaint(results.complete_results, 'cub200', 'birds', tmp_path)


def test_a_run_of_the_demo_is_recorded(demo_run, tmp_path):
    path = demo_run(2, 0.8, name='birds-few', split='few')
    written = json.loads(path.read_text())
    assert path.name == 'birds-few-demo-2.json'
    assert written['metrics']['SPOL'] == {
        'GT-known': 80, 'auto threshold': 85, 'threshold': 0.93, 'best threshold': 90,
        'MaxBoxAcc': 50, 'MaxBoxAccV2': 50, 'PxAP': 50, 'Top-1 localization': 60,
        'Top-5 localization': 70}
    assert written['metrics']['classifier'] == {'Top-1': 90}
    assert (written['set'], written['command'], written['seconds']) == (
        'birds-few', 'bash demo.sh --data birds --train few.txt --name birds-few --seed 2', 14)
    assert written['lists'] == results.digests(tmp_path / 'data' / 'birds', 'few.txt', 'val.txt')


@pytest.mark.parametrize(('options', 'expected'), [
    (dict(chosen=0.2, rule={**RULE, 'threshold': 0.2}), (80, 80, 0.2)),  # there is no 0.2 beside it
    (dict(rule={}), (80, None, None)),  # the threshold was given
])
def test_only_a_threshold_chosen_without_boxes_is_called_so(demo_run, options, expected):
    spol = json.loads(demo_run(0, 0.8, **options).read_text())['metrics']['SPOL']
    assert (spol['GT-known'], spol.get('auto threshold'), spol.get('threshold')) == expected


@pytest.mark.parametrize('missing', ['arguments', 'sweep'])
def test_an_incomplete_run_is_refused(demo_run, tmp_path, missing):
    demo_run(0, 0.8)
    path = tmp_path / 'cub200-seg' / 'out' / 'birds' / 'results.json'
    content = json.loads(path.read_text())
    del content[missing]
    path.write_text(json.dumps(content))
    assert 'no complete run' in complaint(results.report, 'cub200', 'birds', tmp_path)


def test_a_run_of_other_data_or_lists_is_not_overwritten(demo_run, tmp_path):
    demo_run(0, 0.8)
    same = dict(dataset='cub200', name='birds', data=tmp_path / 'data' / 'birds',
                train='train.txt', val='val.txt')
    elsewhere = tmp_path / 'elsewhere' / 'birds'
    results.check(Namespace(**same), tmp_path)
    results.check(Namespace(**{**same, 'name': 'other', 'data': elsewhere}), tmp_path)
    for change in (dict(data=elsewhere), dict(train='few.txt'), dict(val='few.txt')):
        assert '--name' in complaint(results.check, Namespace(**{**same, **change}), tmp_path)


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


def test_the_report_shows_both_thresholds(demo_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, 'mask_parts', lambda folder: f'masks in {folder}')
    demo_run(0, 0.8)
    results.report('cub200', 'birds', tmp_path)
    printed = capsys.readouterr().out
    assert '| SPOL | 80.0 | 85.0 | 90.0 | 50.0 | 50.0 | 50.0 | 60.0 | 70.0 | 0.93 |  |' in printed
    assert '| classifier |  |  |  |  |  |  |  |  |  | 90.0 |' in printed
    assert 'masks in mask' in printed


def test_parts_of_pseudo_masks(tiny_project):
    """The masks are the true ones, a quarter of each image."""
    assert ('6 images: foreground 25 %, background 75 %, ignored 0 % of the pixels'
            in results.mask_parts(tiny_project / 'data' / 'mask'))


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
    assert '| SPOL |' in printed
    assert 'pseudo masks of 6 images' in printed
