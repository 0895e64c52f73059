"""demo.sh: what it runs on which data, without running it."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

LITE = 'timm/tf_efficientnet_lite0'


@pytest.fixture
def demo(tmp_path):
    """demo(arguments) -> (exit code, [the arguments of each Python program], stderr), from a copy
    of the project whose Python writes down its arguments."""
    project = tmp_path / 'project'
    (project / 'tools').mkdir(parents=True)
    for name in ('demo.sh', 'tools/venv.sh', 'tools/recipe.sh', 'requirements.txt'):
        shutil.copy(ROOT / name, project / name)
    python = project / '.venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit\n'
                      f'[ "$1" = -m ] || printf "%s\\n" "$*" >> {tmp_path}/calls\n')
    python.chmod(0o755)

    def run(*arguments):
        done = subprocess.run(['bash', project / 'demo.sh', *map(str, arguments)], text=True,
                              capture_output=True, check=False, env={**os.environ, 'LC_ALL': 'C'})
        calls = tmp_path / 'calls'
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return done.returncode, lines, done.stderr

    return run


@pytest.fixture
def data(tmp_path) -> Path:
    """A data folder with 24 training images of 3 classes, with boxes."""
    folder = tmp_path / 'my birds'
    folder.mkdir()
    for split, count in (('train', 24), ('val', 6)):
        (folder / f'{split}.txt').write_text(
            ''.join(f'{n}.jpg,{n % 3},0 0 9 9\n' for n in range(count)))
    return folder


def test_drawn_birds_are_made_and_trained_by_the_recipe(demo):
    code, calls, _ = demo('--seed', 4)
    assert code == 0
    assert calls[0] == 'dataset/make_mini.py --layout cub --out dataset/mini --seed 4'
    common = f'--datapath dataset/mini --list {{}}.txt --clsnum 10 --seed 4 --backbone {LITE}'
    sizes = '--resize 166 --crop 144'
    assert calls[3] == (
        f'cub200-cam/train.py --savepath cub200-cam/out/mini {common.format("train")} {sizes} '
        '--batch_size 8 --epoch 12 --show 6')
    assert calls[4] == (
        f'cub200-cam/test.py --savepath cub200-cam/out/mini {common.format("val")} {sizes} '
        '--snapshot cub200-cam/out/mini/model-12 --evaluate --sweep')
    assert calls[6] == (
        f'cub200-seg/train.py --savepath cub200-seg/out/mini {common.format("train")} '
        '--resize 222 --crop 192 --batch_size 8 --epoch 4 --lr 0.1 --show 6 '
        '--maskpath cub200-cam/out/mini/mask')
    assert [call.split()[0] for call in calls] == [
        'dataset/make_mini.py', 'cub200-cls/train.py', 'cub200-cls/test.py', 'cub200-cam/train.py',
        'cub200-cam/test.py', 'cub200-cam/test.py', 'cub200-seg/train.py', 'cub200-seg/test.py',
        'tools/report.py']


def test_own_data_are_trained_for_as_many_steps(demo, data):
    code, calls, _ = demo('--data', data)
    assert code == 0
    assert 'make_mini.py' not in ' '.join(calls)
    assert [call.split('--epoch ')[1].split()[0] for call in calls if 'train.py' in call] == [
        '72', '177', '97']
    for call in calls[:-1]:
        assert f'--datapath {data}' in call
        assert '--clsnum 3' in call
        assert f'/out/{data.name} ' in call
    assert f'--list {data}/val.txt' in calls[-2]
    assert '--snapshot cub200-seg/out/my birds/model-97' in calls[-2]


def test_another_training_list_has_a_folder_of_its_own(demo, data):
    few = data.parent / 'few.txt'
    few.write_text('a.jpg,0\nb.jpg,1\n')
    (data / 'other.txt').write_text('c.jpg,1\n')
    code, calls, _ = demo('--data', data, '--train', few, '--val', 'other.txt')
    assert code == 0
    assert f'cub200-cls/out/my birds-few --datapath {data} --list {few} --clsnum 2' in calls[0]
    assert f'--list {data}/other.txt' in calls[-2]


def test_without_boxes_nothing_is_evaluated(demo, data):
    (data / 'val.txt').write_text('a.jpg,0\n')
    code, calls, _ = demo('--data', data)
    assert code == 0
    assert not any('--evaluate' in call for call in calls)
    assert len(calls) == 7


@pytest.mark.parametrize(('arguments', 'message'), [
    ('--data nowhere', '--data: no such folder'),
    ('--data {} --train nothing.txt', '--train nothing.txt: no such list'),
    ('--data {} --train one.txt', '1 training images and the label 2: each class needs'),
    ('--data {} --photos {}', 'exclude each other'),
    ('--data {} --dataset imagenet', 'takes the CUB layout'),
    ('--val one.txt', '--train and --val need --data'),
    ('--data', '--data needs a value'),
    ('--what', 'unknown option --what'),
])
def test_bad_arguments_are_one_line(demo, data, arguments, message):
    (data / 'one.txt').write_text('a.jpg,0\n')
    code, calls, said = demo(*shlex.split(arguments.replace('{}', shlex.quote(str(data)))))
    assert (code, calls) == (2, [])
    assert said.startswith('error: ')
    assert message in said
    assert said.count('\n') == 1
