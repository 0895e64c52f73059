"""The command line: flags, their types, the scripts' defaults, what a checkpoint records."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, complaint

from utils import arguments


class Reached(BaseException):
    """Carries a script's parser out of it."""


def script_parser(script):
    """The parser that a script hands to `parse`."""
    def stop(parser):
        raise Reached(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arguments, 'parse', stop)
        patch.setattr(sys, 'path', list(sys.path))
        main = runpy.run_path(str(ROOT / script), run_name='stage')['main']
        with pytest.raises(Reached) as caught:
            main()
    return caught.value.args[0]


@pytest.fixture
def parsed(monkeypatch, tmp_path):
    """parsed('cub200-cam/train.py', '--epoch', '1') -> what the script makes of the command line,
    given in tmp_path, its data folder."""
    monkeypatch.chdir(tmp_path)

    def call(script, *flags):
        parser = script_parser(script)
        parser.set_defaults(datapath=tmp_path, savepath=tmp_path / 'out')
        monkeypatch.setattr(sys, 'argv', [script, *flags])
        return arguments.parse(parser)

    return call


TRAIN = 'cub200-cam/train.py'
NONNEGATIVE_INT = ['abc', '', '-1', '1.5', 'nan', '1e3']
POSITIVE = [*NONNEGATIVE_INT, '0']
NONNEGATIVE_FLOAT = ['abc', '', '-1e-9', 'nan', 'inf', '1e400']
FRACTION = [*NONNEGATIVE_FLOAT, '1', '1.5']
REFUSED = {
    '--clsnum': POSITIVE, '--batch_size': POSITIVE, '--resize': POSITIVE, '--epoch': POSITIVE,
    '--crop': NONNEGATIVE_INT, '--num_workers': NONNEGATIVE_INT,
    '--seed': [*NONNEGATIVE_INT, str(2 ** 64)], '--lr': [*NONNEGATIVE_FLOAT, '0', '1e-400'],
    '--weight_decay': NONNEGATIVE_FLOAT, '--momentum': FRACTION, '--resume': ['maybe', 'true'],
    '--nesterov': ['abc', '', '2', 'None'], '--mode': ['test'], '--amp': ['O2'],
    '--stages': ['543'], '--fusion': ['sum'],
}


def test_a_wrong_value_is_one_line_that_names_flag_and_value(monkeypatch):
    parser = script_parser(TRAIN)
    for flag, values in REFUSED.items():
        for value in values:
            monkeypatch.setattr(sys, 'argv', [TRAIN, f'{flag}={value}'])
            message = complaint(arguments.parse, parser)
            assert flag in message
            assert repr(value) in message
            assert '--help' in message
        if flag != '--resume':
            monkeypatch.setattr(sys, 'argv', [TRAIN, flag])
            assert flag in complaint(arguments.parse, parser)


def test_a_threshold_is_a_fraction_or_auto_for_seg_test(parsed, tmp_path):
    (tmp_path / 'm').touch()
    script = 'cub200-seg/test.py', '--snapshot', 'm'
    for value in FRACTION:
        assert '--threshold' in complaint(parsed, *script, f'--threshold={value}')
    assert parsed(*script, '--threshold', '0.999').threshold == 0.999
    assert parsed(*script, '--threshold', 'auto').threshold == 'auto'
    script = 'cub200-cam/test.py', '--snapshot', 'm', '--evaluate'
    assert '--threshold' in complaint(parsed, *script, '--threshold', 'auto')


@pytest.mark.parametrize(('flags', 'said'), [
    (('--resize', '100'), '--crop 224 is larger than --resize 100'),
    (('--datapath', 'absent'), 'absent'),
    (('--momentum', '0'), 'add --nesterov false'),
    (('--clsnum', '1'), 'the softmax is always 1'), (('--snapshot', 'absent'), 'no checkpoint')])
def test_what_cannot_work_is_found_before_the_work(parsed, flags, said):
    assert said in complaint(parsed, TRAIN, *flags)


def test_an_output_folder_that_cannot_be_made_is_found_before_the_work(parsed, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(OSError, match='file/out'):
        parsed(TRAIN, '--savepath', 'file/out')


# ---------------------------------------------------------------- defaults of the scripts

COMMON = {'device': 'auto', 'seed': 0}
TRAINING = {**COMMON, 'mode': 'train', 'list': 'train.txt', 'momentum': 0.9, 'nesterov': True,
            'weight_decay': 1e-4, 'pretrained': 'auto', 'snapshot': None, 'resume': None,
            'amp': 'auto'}
TEST = {**COMMON, 'mode': 'test', 'amp': 'off'}
CLS_TRAIN = {**TRAINING, 'arch': 'efficientnet_b7', 'batch_size': 16, 'resize': 685, 'crop': 600,
             'lr': 0.05, 'epoch': 20}
MFF_TRAIN = {**TRAINING, 'backbone': 'resnet50', 'resize': 256, 'crop': 224, 'lr': 0.02}
CAM_TRAIN = {**MFF_TRAIN, 'stages': '345', 'fusion': 'multiply', 'no_attention': False}
CLS_TEST = {**TEST, 'arch': 'efficientnet_b7', 'list': 'val.txt', 'resize': 685, 'crop': 0}
CAM_TEST = {**TEST, 'backbone': 'resnet50', 'list': None, 'resize': 256, 'crop': None,
            'threshold': 0.2}
SEG_TEST = {**TEST, 'backbone': 'resnet50', 'list': 'val.txt', 'resize': 256, 'crop': 224}
DEFAULTS = {
    'cub200-cls/train.py': CLS_TRAIN,
    'cub200-cls/test.py': {**CLS_TEST, 'paper_snapshot': 'model-20'},
    'cub200-cam/train.py': {**CAM_TRAIN, 'batch_size': 64, 'epoch': 32, 'no_distillation': False},
    'cub200-cam/test.py': {**CAM_TEST, 'paper_snapshot': 'model-32', 'no_prior': False},
    'cub200-seg/train.py': {**MFF_TRAIN, 'batch_size': 128, 'epoch': 8, 'threshold': 0.2},
    'cub200-seg/test.py': {**SEG_TEST, 'paper_snapshot': 'model-8', 'threshold': 0.2},
    'imagenet-cls/train.py': CLS_TRAIN,
    'imagenet-cls/test.py': {**CLS_TEST, 'pretrained': 'auto'},
    'imagenet-cam/train.py': {**CAM_TRAIN, 'batch_size': 128, 'epoch': 1},
    'imagenet-cam/test.py': {**CAM_TEST, 'paper_snapshot': 'model-6000'},
    'imagenet-seg/train.py': {**MFF_TRAIN, 'batch_size': 128, 'epoch': 1, 'threshold': 0.8},
    'imagenet-seg/test.py': {**SEG_TEST, 'paper_snapshot': 'model-6000', 'threshold': 0.8},
}


@pytest.mark.parametrize('script', DEFAULTS)
def test_a_stage_scripts_defaults_are_the_papers(script):
    expected, cub = dict(DEFAULTS[script]), script.startswith('cub200')
    expected['clsnum'] = 200 if cub else 1000
    expected['datapath'] = ROOT / 'dataset' / ('CUB_200_2011' if cub else 'ImageNet2012')
    expected['savepath'] = ROOT / Path(script).parent / 'out'
    found = vars(script_parser(script).parse_args([]))
    assert {name: found.get(name, 'no such flag') for name in expected} == expected


# ---------------------------------------------------------------- what a checkpoint records


@pytest.fixture
def tested(parsed, tmp_path):
    """tested(script, {'resize': 166}, '--crop', '9') -> the arguments of a test script whose newest
    checkpoint, model-7, was trained with these."""
    def call(script, recorded, *flags):
        (tmp_path / 'out').mkdir()
        for name in ('model-6', 'model-7'):
            (tmp_path / 'out' / name).touch()
        (tmp_path / 'out' / 'model-7.json').write_text(json.dumps(recorded))
        return parsed(script, *flags)

    return call


SEG, CAM = 'cub200-seg/test.py', 'cub200-cam/test.py'
RECORDED = {'backbone': 'timm/x', 'resize': 166, 'crop': 144, 'clsnum': 3, 'threshold': 0.8,
            'batch_size': 5, 'class_names': ['a', 'b', 'c'], 'arch': None}


def test_a_test_takes_the_newest_model_and_its_trainings_settings(tested, tmp_path, capsys):
    args = tested(SEG, RECORDED)
    names = ('backbone', 'resize', 'crop', 'clsnum', 'threshold', 'paper_threshold', 'batch_size')
    assert args.snapshot == tmp_path / 'out' / 'model-7'
    assert [getattr(args, name) for name in names] == ['timm/x', 166, 144, 3, 0.8, 0.2, 128]
    assert args.maskpath == tmp_path / 'mask'
    assert capsys.readouterr().out == ('model-7: trained with --backbone timm/x, --resize 166, '
                                       '--crop 144, --clsnum 3, --threshold 0.8\n')


@pytest.mark.parametrize(('script', 'flags', 'list_', 'crop'), [
    (CAM, (), 'train.txt', 0), (CAM, ('--evaluate',), 'val.txt', 144),
    (CAM, ('--evaluate', '--list', 'l.txt', '--crop', '0'), 'l.txt', 0),
    ('imagenet-cam/test.py', (), 'train.txt', 0), ('cub200-cls/test.py', (), 'val.txt', 0),
    (SEG, (), 'val.txt', 144)])
def test_the_task_decides_list_and_crop_and_whole_images_stay_whole(tested, script, flags, list_,
                                                                    crop):
    args = tested(script, RECORDED, *flags)
    assert (args.resize, args.crop, args.list) == (166, crop, list_)


HEAVY = {'torch', 'torchvision', 'timm', 'albumentations', 'matplotlib'}


@pytest.mark.parametrize(('scripts', 'flag'), [
    ([*DEFAULTS, 'dataset/make_mini.py', 'dataset/prepare_cub.py'], '--help'),
    ([TRAIN, 'dataset/make_mini.py'], '--no_such_flag')])
def test_help_and_errors_in_arguments_do_not_wait_for_pytorch(scripts, flag, tmp_path):
    """And the project is found from any folder."""
    code = ('import runpy, sys\n'
            f'for script in {[str(ROOT / script) for script in scripts]!r}:\n'
            f'    sys.argv = [script, {flag!r}]\n'
            '    sys.path.insert(0, script.rpartition("/")[0])\n'
            '    try: runpy.run_path(script, run_name="__main__")\n'
            f'    except SystemExit as end: assert end.code == {2 * (flag != "--help")}, end\n'
            '    del sys.path[0]\n'
            f'assert not {HEAVY!r} & set(sys.modules)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
