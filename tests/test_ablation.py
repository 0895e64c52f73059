"""The ablation: its commands, that it continues, its records and figures."""

import json
import time
from argparse import Namespace
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest
from conftest import LITE, call_script, complaint

from tools import ablation, results
from utils.files import write_json


@pytest.fixture
def args(tmp_path):
    return Namespace(data=Path('birds'), set='birds', seeds=[0, 1], out=tmp_path / 'out', jobs=2,
                     backbone=LITE, device='cpu', classes=3, count=21, cam_epochs=3, seg_epochs=2)


def evaluation(gt_known):
    """An evaluation as results.json has it."""
    return {'strict': {'gt_known': gt_known}, 'max_box_acc': 0.5, 'max_box_acc_v2': 0.6,
            'pxap': None, 'sweep': {'best': {'strict': {'gt_known': 0.9}}}}


@pytest.fixture
def commands(args, monkeypatch):
    """commands(variant) -> the commands that it runs, as text."""
    def of(name):
        called = []
        monkeypatch.setattr(ablation, 'call', lambda folder, script, flags: called.append(
            f'{script} {" ".join(map(str, flags))}'))
        ablation.run_variant(args, 1, name)
        return called

    return of


def test_commands_of_the_papers_network(commands):
    """It is trained epoch by epoch, and makes the pseudo masks of both segmentations."""
    texts = commands(ablation.PAPER)
    trained = [text for text in texts if text.startswith('cub200-cam/train.py')]
    # 21 images in batches of 8 are 3 steps.
    assert [f'--max_steps {steps} ' in text
            for text, steps in zip(trained, (3, 6, 9), strict=True)] == [True] * 3
    assert all('--stages 345 --fusion multiply' in text for text in trained)
    assert all(f'--datapath birds --clsnum 3 --backbone {LITE} --seed 1' in text for text in texts)
    masks = [text for text in texts if '--resize 256' in text]
    assert ['--no_prior' in text for text in masks] == [False, True]
    assert all('model-3' in text for text in masks)
    assert sum(text.startswith('cub200-seg/train.py') for text in texts) == 2 * 2
    assert sum('--sweep' in text for text in texts) == 3 + 2 * 2


def test_another_variant_is_trained_once(commands):
    trained, tested = commands('without self-distillation')
    assert trained.startswith('cub200-cam/train.py ')
    assert ' --no_distillation ' in trained
    assert tested.startswith('cub200-cam/test.py ')


def test_what_has_ended_is_not_run_again(tmp_path, monkeypatch):
    script = tmp_path / 'script.py'
    script.write_text('import os, sys\nprint("ran", os.environ["OMP_NUM_THREADS"])\n'
                      'sys.exit(len(sys.argv) - 2)')
    monkeypatch.setattr(results, 'commit', lambda: 'abc')
    for _ in range(2):
        ablation.call(tmp_path / 'run', script, ['a'])
    assert (tmp_path / 'run' / 'log.txt').read_text().count('ran 1') == 1
    message = complaint(ablation.call, tmp_path / 'run', script, ['a', 'b'])
    assert 'ended with exit code 1: see' in message
    assert len(json.loads((tmp_path / 'run' / 'done.json').read_text())) == 1


def test_an_error_stops_all_runs(args, monkeypatch, tmp_path):
    """The other one's command is terminated, or started in vain; it would take a minute."""
    script = tmp_path / 'script.py'
    script.write_text('import time\ntime.sleep(60)')

    def run_variant(args, seed, name):
        if name == 'without MCA':
            raise results.InputError('no memory')
        ablation.call(tmp_path / 'run', script, [])

    monkeypatch.setattr(ablation, 'run_variant', run_variant)
    monkeypatch.setattr(ablation, 'stopping', Event())
    monkeypatch.setattr(ablation, 'VARIANTS', {ablation.PAPER: [], 'without MCA': []})
    args.seeds = [0]
    begin = time.monotonic()
    assert complaint(ablation.run_all, args) == 'no memory'
    assert time.monotonic() - begin < 50
    assert not (tmp_path / 'run' / 'done.json').exists()


def test_records_and_figures(args, tmp_path, monkeypatch):
    trained = {'training': {'versions': {'torch': '2'}}}
    monkeypatch.setattr(results, 'digests', lambda *arguments: {'train': 'x'})
    for seed, value in ((0, 0.5), (1, 0.7)):
        for name in (*ablation.VARIANTS, ablation.SPOL, ablation.NO_PRIOR):
            content = evaluation(value)
            if name in ablation.VARIANTS:
                content = {'evaluation': {'fused': content}}
            folder = ablation.folder_of(args, seed, name)
            for place in ('', 'epoch-1', 'epoch-2', 'epoch-3'):
                write_json(folder / place / 'results.json', {**content, **trained})
            (folder / 'done.json').write_text('{"train": {"seconds": 2, "commit": "abc"}}')
    ablation.write_records(args, tmp_path / 'results')
    ablation.draw_figures(args, tmp_path / 'results')
    written = json.loads((tmp_path / 'results' / 'birds-fusion-1.json').read_text())
    assert written['metrics']['multiply 2345']['GT-known'] == 70
    assert written['command'] == 'python tools/ablation.py --data birds --seeds 1'
    assert (written['commit'], written['seconds'], written['lists']) == ('abc', 20, {'train': 'x'})
    assert len(list((tmp_path / 'results').iterdir())) == 4
    for name in ('ablation.png', 'curve.png'):
        assert len(np.unique(cv2.imread(str(args.out / name)).reshape(-1, 3), axis=0)) > 100


def parsed(monkeypatch, *arguments):
    monkeypatch.setattr('sys.argv', ['ablation.py', *map(str, arguments)])
    return ablation.parse()


def test_classes_and_epochs_come_from_the_lists(tiny_project, monkeypatch):
    found = parsed(monkeypatch, '--data', tiny_project / 'data')
    assert found.classes == 2
    assert (found.cam_epochs - 1) * found.count < 400 * 8 <= found.cam_epochs * found.count
    assert vars(parsed(monkeypatch)).items() >= {'cam_epochs': 8, 'seg_epochs': 4}.items()


def test_a_list_without_boxes_is_refused(project, monkeypatch):
    lines = (project / 'data' / 'val.txt').read_text().splitlines()
    (project / 'data' / 'val.txt').write_text(''.join(
        f'{line.rpartition(",")[0]}\n' for line in lines))
    assert 'val.txt has no boxes' in complaint(parsed, monkeypatch, '--data', project / 'data')


@pytest.mark.end_to_end
def test_a_variant_is_trained_and_its_segmentation(tiny_project, args, monkeypatch):
    """By the stage scripts, here without a process for each, which would take longer to start."""
    def call(folder, script, flags):
        assert call_script(script, *flags) == 0

    monkeypatch.setattr(ablation, 'call', call)
    monkeypatch.setattr(ablation, 'SIZES', ['--resize', 40, '--crop', 32])
    args.data, args.classes, args.backbone = tiny_project / 'data', 2, LITE
    args.count = len((args.data / 'train.txt').read_text().splitlines())
    args.cam_epochs = args.seg_epochs = 1
    ablation.run_variant(args, 0, ablation.PAPER)
    for name in (ablation.PAPER, ablation.SPOL, ablation.NO_PRIOR):
        found = ablation.metrics_of(args, 0, name, 1)
        assert found['count'] == len((args.data / 'val.txt').read_text().splitlines())
        assert found['sweep']['best']['strict']['gt_known'] <= 1
    masks = [ablation.folder_of(args, 0, name) / 'mask' for name in (ablation.SPOL,
                                                                     ablation.NO_PRIOR)]
    with_prior, without = ([cv2.imread(str(path))[..., 1] for path in sorted(folder.rglob('*.png'))]
                           for folder in masks)
    assert len(with_prior) == len(without) == args.count
    assert any(mask.any() for mask in with_prior)
    assert not any(mask.any() for mask in without)
