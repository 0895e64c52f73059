"""The ablation and the table over seeds."""

import csv
import json
import subprocess

import pytest
import torch
from conftest import LITE

from tools import ablation, seeds, summary
from utils.errors import InputError


def record(gt_known, best=0.9, field=0.5):
    """An evaluation as results.json has it."""
    return {'strict': {'gt_known': gt_known}, 'max_box_acc': field, 'max_box_acc_v2': field,
            'pxap': field, 'sweep': {'best': {'strict': {'gt_known': best}}}}


def test_mean_and_sample_standard_deviation():
    assert summary.mean_and_std([1, 2, 3]) == (2, 1)
    assert summary.mean_and_std([5]) == (5, 0)


def test_table_has_a_cell_for_each_figure():
    runs = [summary.metrics_of(record(value)) for value in (0.2, 0.4)]
    table = summary.markdown('map', summary.summaries({'SPOL': runs}))
    assert table.splitlines()[-1] == ('| SPOL | 30.0 ± 14.1 | 90.0 ± 0.0 | 50.0 ± 0.0 '
                                      '| 50.0 ± 0.0 | 50.0 ± 0.0 |')


def test_table_leaves_out_what_has_no_ground_truth():
    assert 'PxAP' not in summary.metrics_of({**record(0.5), 'pxap': None})


def test_ablation_compares_what_the_paper_compares():
    fused = {name for name in ablation.VARIANTS if name.split()[0] in ablation.FUSIONS}
    assert fused == {f'{fusion} {stages}' for fusion in ('add', 'concatenate', 'multiply')
                     for stages in ('45', '345', '2345')}
    assert set(ablation.VARIANTS) - fused == {'stage 5 alone', 'without MCA',
                                              'without self-distillation'}
    assert set(ablation.figure_1b_names()) == fused | {'stage 5 alone'}


def test_ablation_is_summed_up_over_seeds(tmp_path):
    for seed, value in ((0, 0.5), (1, 0.7)):
        for name in [*ablation.VARIANTS, 'SPOL', ablation.WITHOUT_PRIOR]:
            content = record(value)
            if name in ablation.VARIANTS:
                content = {'evaluation': {'fused': content}}
            for folder in ('', 'epoch-1', 'epoch-2'):
                path = ablation.run_folder(tmp_path, seed, name) / folder / 'results.json'
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(content))
    ablation.write_results(tmp_path, [0, 1])
    text = (tmp_path / 'ablation.md').read_text()
    assert '| multiply 2345 | 60.0 ± 14.1 |' in text
    assert '| segmentation: SPOL | 60.0 ± 14.1 |' in text
    rows = csv.DictReader((tmp_path / 'ablation.csv').read_text().splitlines())
    assert {row['metric'] for row in rows} == set(summary.METRICS)
    assert (tmp_path / 'ablation.png').stat().st_size > 1000
    curves = ablation.curves(tmp_path, [0, 1])
    assert [len(points) for points in curves.values()] == [2, 2]
    assert curves['SPOL'][0] == pytest.approx((60, 14.142), abs=1e-3)


def test_ablation_is_not_continued_with_other_settings(tmp_path):
    check = ablation.check_settings
    check(tmp_path, {'crop': 128, 'seeds': [0]})
    check(tmp_path, {'crop': 128, 'seeds': [0, 1]})
    with pytest.raises(InputError, match='started with --crop 128, not 96'):
        check(tmp_path, {'crop': 96, 'seeds': [0]})


def test_seeds_keep_runs_that_are_there(tmp_path, monkeypatch):
    (tmp_path / 'seg.json').write_text('{}')
    monkeypatch.setattr(subprocess, 'run', None)  # would fail if called
    assert seeds.run_demo(tmp_path, 0, []) == tmp_path


def test_seeds_are_tabulated(tmp_path):
    for number, value in enumerate((0.5, 0.7)):
        folder = tmp_path / str(number)
        folder.mkdir()
        maps = {'deep': record(value - 0.2), 'fused': record(value)}
        for stage, content in (('cls', {'top1': 0.9}), ('cam', {'evaluation': maps}),
                               ('seg', record(value + 0.2))):
            (folder / f'{stage}.json').write_text(json.dumps(content))
    table = seeds.table([tmp_path / '0', tmp_path / '1'])
    assert table.startswith('2 seeds; classification top-1 90.0 ± 0.0 %')
    lines = [line.split(' ± ')[0] for line in table.splitlines()[-3:]]
    assert lines == ['| plain CAM | 40.0', '| fused CAM | 60.0', '| SPOL | 80.0']


@pytest.mark.end_to_end
def test_ablation_trains_and_evaluates_a_variant_and_its_segmentation(tmp_path):
    settings = ablation.Settings(
        photos=None, train=1, val=1, backbone=LITE, resize=72, crop=64, batch_size=5,
        cam_epochs=2, seg_epochs=1, seg_lr=0.1, device='cpu')
    ablation.make_images(tmp_path, 0, settings)
    threads = torch.get_num_threads()
    try:
        for name in (ablation.PAPER, 'concatenate 2345'):
            assert ablation.run_variant(tmp_path, 0, name, settings) == f'seed 0, {name}'
        folder = ablation.run_folder(tmp_path, 0, ablation.PAPER)
        time_of_model = (folder / 'model-2').stat().st_mtime_ns
        ablation.run_variant(tmp_path, 0, ablation.PAPER, settings)
    finally:
        torch.set_num_threads(threads)
    assert (folder / 'model-2').stat().st_mtime_ns == time_of_model  # nothing is done twice
    names = [ablation.PAPER, 'concatenate 2345', 'SPOL', ablation.WITHOUT_PRIOR]
    for name in names:
        found = ablation.read_metrics(ablation.run_folder(tmp_path, 0, name))
        assert found['count'] == 10
        assert found['sweep']['best']['strict']['gt_known'] <= 1
    assert len(ablation.curves(tmp_path, [0])['fused CAM']) == 2
    masks = sorted(path.name for path in (folder / 'mask').rglob('*.png'))
    assert masks == sorted(path.name for path in (folder / 'mask-without-prior').rglob('*.png'))
