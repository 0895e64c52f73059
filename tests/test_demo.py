"""The shell scripts: what demo.sh runs on which data, without running it, and tools/venv.sh."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import LITE, ROOT

# Writes down its arguments, or prints those of pip; exits as told for a script that is to fail.
PYTHON = '''#!/bin/sh
[ "$1" = -c ] && exit
case $* in "-m pip "*) echo "$*"; exit ;; esac
echo "$*" >> {folder}/calls
case $* in *"$FAILING"*) exit ${{CODE:-0}} ;; esac
'''


@pytest.fixture
def demo(tmp_path):
    """demo(arguments) -> (exit code, [the arguments of each Python program], stdout, stderr), from
    a copy of the project whose Python writes down its arguments."""
    project = tmp_path / 'project'
    (project / 'tools').mkdir(parents=True)
    for name in ('demo.sh', 'label.sh', 'test.sh', 'tools/venv.sh', 'tools/recipe.sh',
                 'requirements.txt', 'requirements-dev.txt'):
        shutil.copy(ROOT / name, project / name)
    python = project / '.venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(folder=tmp_path))
    python.chmod(0o755)

    def run(*arguments, script='demo.sh', **environment):
        done = subprocess.run(['bash', project / script, *map(str, arguments)], text=True,
                              capture_output=True, check=False,
                              env={**os.environ, 'LC_ALL': 'C', 'FAILING': 'none', **environment})
        calls = tmp_path / 'calls'
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return done.returncode, lines, done.stdout, done.stderr

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
    code, calls, _, _ = demo('--seed', 4)
    assert code == 0
    assert calls[0] == ('tools/results.py check --dataset cub200 --name mini --data dataset/mini '
                        '--train train.txt --val val.txt')
    assert calls[1] == 'dataset/make_mini.py --layout cub --out dataset/mini --seed 4'
    common = f'--datapath dataset/mini --list {{}}.txt --clsnum 10 --seed 4 --backbone {LITE}'
    sizes = '--resize 166 --crop 144'
    assert calls[4] == (
        f'cub200-cam/train.py --savepath cub200-cam/out/mini {common.format("train")} {sizes} '
        '--batch_size 8 --resume no --epoch 12')
    assert calls[5] == (
        f'cub200-cam/test.py --savepath cub200-cam/out/mini {common.format("val")} {sizes} '
        '--snapshot cub200-cam/out/mini/model-12 --evaluate --sweep')
    assert calls[7].startswith(
        f'cub200-seg/train.py --savepath cub200-seg/out/mini {common.format("train")} ')
    assert calls[7].endswith('--maskpath cub200-cam/out/mini/mask')
    assert '--sweep --threshold auto' in calls[8]
    assert [call.split()[0] for call in calls[1:]] == [
        'dataset/make_mini.py', 'cub200-cls/train.py', 'cub200-cls/test.py', 'cub200-cam/train.py',
        'cub200-cam/test.py', 'cub200-cam/test.py', 'cub200-seg/train.py', 'cub200-seg/test.py',
        'tools/results.py']


def test_own_data_are_trained_for_as_many_steps(demo, data):
    code, calls, _, _ = demo('--data', data)
    assert code == 0
    assert 'make_mini.py' not in ' '.join(calls)
    epochs = [int(call.split('--epoch ')[1].split()[0]) for call in calls if 'train.py' in call]
    recipe = dict(re.findall(r'(\w+_steps)=(\d+)', (ROOT / 'tools' / 'recipe.sh').read_text()))
    for count, stage, batch in zip(epochs, ('cls', 'cam', 'seg'), (8, 8, 16), strict=True):
        steps = int(recipe[f'{stage}_steps'])
        assert (count - 1) * 24 < batch * steps <= count * 24
    for call in calls[1:-1]:
        assert f'--datapath {data}' in call
        assert '--clsnum 3' in call
        assert f'/out/{data.name} ' in call
    assert f'--list {data}/val.txt' in calls[-2]
    assert f'--snapshot cub200-seg/out/my birds/model-{epochs[2]}' in calls[-2]
    assert calls[-1] == 'tools/results.py report --dataset cub200 --name my birds'


@pytest.mark.parametrize(('name', 'folder'), [((), 'my birds-few'), (('--name', 'mine'), 'mine')])
def test_other_lists_and_names_have_folders_of_their_own(demo, data, name, folder):
    few = data.parent / 'few.txt'
    few.write_text('a.jpg,0\nb.jpg,1\n')
    (data / 'other.txt').write_text('c.jpg,1\n')
    code, calls, _, _ = demo('--data', data, '--train', few, '--val', 'other.txt', *name)
    assert code == 0
    assert calls[0].endswith(f'--name {folder} --data {data} --train {few} --val {data}/other.txt')
    assert f'cub200-cls/out/{folder} --datapath {data} --list {few} --clsnum 2' in calls[1]
    assert f'--list {data}/other.txt' in calls[-2]


def test_without_boxes_nothing_is_evaluated(demo, data):
    (data / 'val.txt').write_text('a.jpg,0\n')
    code, calls, out, _ = demo('--data', data)
    assert code == 0
    assert not any('--evaluate' in call for call in calls)
    assert '[6/6, ' in out


@pytest.mark.parametrize('code', [2, 130, 143])
@pytest.mark.parametrize(('script', 'count'), [('results.py check', 1), ('cam/train.py', 4)])
def test_nothing_runs_after_a_script_that_failed_or_was_stopped(demo, data, script, count, code):
    done, calls, _, _ = demo('--data', data, FAILING=script, CODE=str(code))
    assert (done, len(calls)) == (code, count)


@pytest.mark.parametrize(('arguments', 'message'), [
    ('--data nowhere', '--data nowhere: no such folder'),
    ('--data {} --train nothing.txt', '--train nothing.txt: no such list'),
    ('--data {} --train one.txt', '1 training images and the label 2: each class needs'),
    ('--data {} --dataset imagenet', 'takes the CUB layout'),
    ('--data {} --name ../mine', '--name ../mine: a name without /'),
    ('--val one.txt', '--train and --val need --data'),
    ('--data', '--data needs a value'),
    ('--what', 'unknown option --what'),
])
def test_bad_arguments_are_one_line(demo, data, arguments, message):
    (data / 'one.txt').write_text('a.jpg,2\n')
    code, calls, _, said = demo(*shlex.split(arguments.replace('{}', shlex.quote(str(data)))))
    assert (code, calls) == (2, [])
    assert said.startswith('error: ')
    assert message in said
    assert said.count('\n') == 1


@pytest.mark.parametrize(('folder', 'options', 'trained', 'words'), [
    ('photos', ['--seed', '1'], True, '--seed 5, and its networks are kept'),
    ('photos', ['--backbone', 'resnet50'], True, f'--backbone {LITE} --seed 5'),
    ('moved', [], False, 'photos, and its training has not ended'),
    ('moved', ['--seed', '5'], True, None),
])
def test_label_sh_keeps_what_it_was_started_with(demo, tmp_path, folder, options, trained, words):
    out, photos = tmp_path / 'labels', tmp_path / folder
    (out / 'data').mkdir(parents=True)
    photos.mkdir()
    (out / 'data' / 'train.txt').write_text(''.join(f'{n}.jpg,{n % 2}\n' for n in range(5000)))
    (out / 'started-with.txt').write_text(f'{LITE}\n5\n{tmp_path / "photos"}\n')
    if trained:
        (out / 'seg').mkdir()
        (out / 'seg' / 'model-4').touch()  # with so many images the fewest epochs are enough
        (out / 'seg' / 'model-4.json').write_text('{"threshold_rule": ""}')
    code, calls, _, said = demo(photos, '--out', out, *options, script='label.sh')
    if words:
        assert (code, calls) == (2, [])
        assert words in said
        assert 'delete' not in said
    else:
        assert code == 0
        assert [call.split()[:2] for call in calls] == [['tools/label.py', str(photos)]]


@pytest.mark.parametrize(('first', 'second', 'installs'), [
    ('demo.sh', 'demo.sh', False),
    ('test.sh', 'test.sh', False),
    ('test.sh', 'demo.sh', False),  # what the tests need includes what the demo needs
    ('demo.sh', 'test.sh', True),
])
def test_packages_are_installed_once(demo, tmp_path, first, second, installs):
    for script, expected in ((first, True), (second, installs), (second, False)):
        code, _, out, _ = demo(script=script)
        assert code == 0
        assert ('installing' in out) == ('-m pip install' in out) == expected
    with open(tmp_path / 'project' / 'requirements.txt', 'a') as file:
        print('another', file=file)
    assert 'installing' in demo(script=second)[2]


@pytest.mark.parametrize('arguments', [[], ['--out'], ['a', 'b']])
def test_gpu_check_needs_one_folder(arguments):
    done = subprocess.run(['bash', ROOT / 'tools' / 'gpu_check.sh', *arguments],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2, 'error: usage: bash tools/gpu_check.sh OUT\n')
