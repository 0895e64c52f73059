"""The ablation."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import LITE, call_script

from tools import ablation
from tools.ablations import charts, variants, workbench
from utils.errors import InputError

SETTINGS = variants.Settings(
    data='birds', train='train.txt', val='val.txt', photos=None, classes=10, backbone=LITE,
    resize=72, crop=64, batch_size=5, cam_epochs=2, seg_epochs=1, seg_lr=0.1, device='cpu')


def record(gt_known, best=0.9, field=0.5):
    """An evaluation as results.json has it."""
    return {'strict': {'gt_known': gt_known}, 'max_box_acc': field, 'max_box_acc_v2': field,
            'pxap': field, 'sweep': {'best': {'strict': {'gt_known': best}}}}


def test_ablation_compares_what_the_paper_compares():
    fused = {name for name in variants.VARIANTS if name.split()[0] in variants.FUSIONS}
    assert fused == {f'{fusion} {stages}' for fusion in ('add', 'concatenate', 'multiply')
                     for stages in ('45', '345', '2345')}
    assert set(variants.VARIANTS) - fused == {'stage 5 alone', 'without MCA',
                                              'without self-distillation'}
    assert set(variants.figure_1b_names()) == fused | {'stage 5 alone'}


def test_ablation_is_recorded_and_drawn(tmp_path):
    ablation.check_settings(tmp_path, {'commit': 'abc'})
    training = {'seconds': 2, 'versions': {'torch': '2'}}
    for seed, value in ((0, 0.5), (1, 0.7)):
        for name in [*variants.VARIANTS, 'SPOL', variants.WITHOUT_PRIOR]:
            content = record(value)
            if name in variants.VARIANTS:
                content = {'evaluation': {'fused': content}}
            for folder in ('', 'epoch-1', 'epoch-2'):
                path = variants.run_folder(tmp_path, seed, name) / folder / 'results.json'
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({**content, 'training': training}))
    ablation.write_results(tmp_path, [0, 1], SETTINGS, tmp_path / 'results')
    written = json.loads((tmp_path / 'results' / 'birds-fusion-1.json').read_text())
    assert written['metrics']['multiply 2345']['GT-known'] == 70
    assert written['command'] == (
        f'python tools/ablation.py --data birds --seeds 1 --backbone {LITE} --resize 72 --crop 64 '
        '--batch_size 5 --cam_epochs 2 --seg_epochs 1 --seg_lr 0.1')
    assert (written['commit'], written['seconds']) == ('abc', 20)
    assert len(list((tmp_path / 'results').iterdir())) == 4
    assert (tmp_path / 'ablation.png').stat().st_size > 1000
    curves = charts.curves(tmp_path, [0, 1])
    assert [len(points) for points in curves.values()] == [2, 2]
    assert curves['SPOL'][0] == pytest.approx((60, 14.142), abs=1e-3)


def test_ablation_is_not_continued_with_other_settings(tmp_path):
    check = ablation.check_settings
    check(tmp_path, {'crop': 128, 'seeds': [0]})
    check(tmp_path, {'crop': 128, 'seeds': [0, 1]})
    with pytest.raises(InputError, match='started with --crop 128, not 96'):
        check(tmp_path, {'crop': 96, 'seeds': [0]})


def parsed(monkeypatch, *arguments):
    monkeypatch.setattr('sys.argv', ['ablation.py', *map(str, arguments)])
    return ablation.parse()


def test_classes_and_epochs_come_from_the_lists(tmp_path, monkeypatch):
    (tmp_path / 'train.txt').write_text(''.join(f'{n}.jpg,{n % 3},0 0 9 9\n' for n in range(150)))
    (tmp_path / 'val.txt').write_text('a.jpg,6,0 0 9 9\n')
    args = parsed(monkeypatch, '--data', tmp_path)
    assert (args.classes, args.cam_epochs, args.seg_epochs) == (7, 22, 11)
    assert parsed(monkeypatch, '--data', tmp_path, '--cam_epochs', 3).cam_epochs == 3
    assert vars(parsed(monkeypatch)).items() >= {'cam_epochs': 8, 'seg_epochs': 4}.items()
    (tmp_path / 'val.txt').write_text('a.jpg,6\n')
    with pytest.raises(InputError, match='val.txt has no boxes'):
        parsed(monkeypatch, '--data', tmp_path)


@pytest.mark.end_to_end
def test_ablation_trains_and_evaluates_a_variant_and_its_segmentation(tmp_path):
    data = tmp_path / 'data'
    assert call_script('dataset/make_mini.py', '--out', data, '--train', 1, '--val', 1,
                       '--size', 96) == 0
    settings = replace(SETTINGS, data=str(data))
    threads = torch.get_num_threads()
    try:
        for name in (variants.PAPER, 'concatenate 2345'):
            assert workbench.run_variant(tmp_path, 0, name, settings) == f'seed 0, {name}'
        folder = variants.run_folder(tmp_path, 0, variants.PAPER)
        time_of_model = (folder / 'model-2').stat().st_mtime_ns
        workbench.run_variant(tmp_path, 0, variants.PAPER, settings)
    finally:
        torch.set_num_threads(threads)
    assert (folder / 'model-2').stat().st_mtime_ns == time_of_model  # nothing is done twice
    names = [variants.PAPER, 'concatenate 2345', 'SPOL', variants.WITHOUT_PRIOR]
    for name in names:
        found = variants.read_metrics(variants.run_folder(tmp_path, 0, name))
        assert found['count'] == 10
        assert found['sweep']['best']['strict']['gt_known'] <= 1
    assert len(charts.curves(tmp_path, [0])['fused CAM']) == 2
    masks = sorted(path.name for path in (folder / 'mask').rglob('*.png'))
    assert masks == sorted(path.name for path in (folder / 'mask-without-prior').rglob('*.png'))
