"""The command line: flags, their types, and the stage scripts' defaults."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import utils.arguments
from utils.arguments import (
    Parser,
    add_arch,
    add_backbone,
    add_evaluation,
    add_maskpath,
    add_show,
    add_snapshot,
    add_top1top5,
    inference_parser,
    parse,
    training_parser,
)
from utils.errors import InputError


@pytest.fixture
def parser(tmp_path):
    """A parser of all flags, its data folder tmp_path."""
    return make_parser(tmp_path, 'train')


def make_parser(datapath, mode):
    script = str(ROOT / 'cub200-cam' / 'train.py')
    common = dict(data='DATA', clsnum=200, batch_size=64, resize=256, crop=224)
    if mode == 'train':
        parser = training_parser(script, 'Doc.', lr=0.02, epoch=32, **common)
        add_show(parser, 'training.png')
    else:
        parser = inference_parser(script, 'Doc.', list='train.txt', **common)
        add_snapshot(parser, 'model-7')
        add_evaluation(parser, threshold=0.2)
    add_backbone(parser)
    add_arch(parser)
    add_maskpath(parser)
    add_top1top5(parser, 'cub200-cls')
    parser.set_defaults(datapath=datapath, savepath=datapath / 'out')
    return parser


@pytest.fixture
def parsed(parser, monkeypatch, tmp_path):
    """parsed('--epoch', '1') -> what `parse` makes of the command line, given in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def call(*flags, parser=parser):
        monkeypatch.setattr(sys, 'argv', ['train.py', *flags])
        return parse(parser)

    return call


def complaint(call, *arguments, **named):
    """The message of the InputError that is raised, which must be one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **named)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


NONNEGATIVE_INT = ['abc', '', '-1', '1.5', 'nan', 'inf', '1e400', '1e3', '²']
POSITIVE = [*NONNEGATIVE_INT, '0']
NONNEGATIVE_FLOAT = ['abc', '', '-1', '-1e-9', 'nan', 'inf', '-inf', '1e400', '²']
FRACTION = [*NONNEGATIVE_FLOAT, '1', '1.5']
REFUSED = {
    '--clsnum': POSITIVE, '--batch_size': POSITIVE, '--resize': POSITIVE, '--epoch': POSITIVE,
    '--crop': NONNEGATIVE_INT, '--num_workers': NONNEGATIVE_INT, '--seed': NONNEGATIVE_INT,
    '--lr': [*NONNEGATIVE_FLOAT, '0', '-0', '1e-400'],
    '--weight_decay': NONNEGATIVE_FLOAT,
    '--momentum': FRACTION,
    '--show': NONNEGATIVE_INT, '--resume': ['maybe', 'true'],
    '--nesterov': ['abc', '', '2', '-1', 'nan', 'None'],
    '--mode': ['test', '', 'TRAIN'],
    '--amp': ['abc', '', 'O2', 'true'],
}


@pytest.mark.parametrize(('flag', 'value'),
                         [(flag, value) for flag, values in REFUSED.items() for value in values])
def test_a_wrong_value_is_one_line_that_names_flag_and_value(parsed, flag, value):
    message = complaint(parsed, f'{flag}={value}')
    assert flag in message
    assert repr(value) in message
    assert '--help' in message


@pytest.mark.parametrize('flag', [
    *(flag for flag in REFUSED if flag != '--resume'),
    '--lr', '--datapath', '--list', '--snapshot'])
def test_a_flag_without_its_value_is_named(parsed, flag):
    assert flag in complaint(parsed, flag)


@pytest.mark.parametrize('flag', ['--learning_rate=1', '--batch=3', '--epochs=3', 'stray'])
def test_an_unknown_or_shortened_flag_is_named(parsed, flag):
    assert flag in complaint(parsed, flag)


ACCEPTED = [
    ('--clsnum', '7', 7), ('--batch_size', '2', 2), ('--resize', '300', 300), ('--crop', '0', 0),
    ('--epoch', '1', 1), ('--num_workers', '0', 0), ('--seed', '12345', 12345),
    ('--lr', '1e-3', 0.001), ('--weight_decay', '0', 0.0), ('--momentum', '0.5', 0.5),
    ('--mode', 'train', 'train'), ('--resume', 'auto', 'auto'),
    ('--list', 'x/y.txt', 'x/y.txt'), ('--savepath', 'x/y', Path('x/y')),
    ('--maskpath', 'x/y', Path('x/y')),
    ('--snapshot', 'm', Path('m')),
    ('--top1top5', 'none', None), ('--top1top5', 'x.npy', Path('x.npy')),
    ('--backbone', 'timm/x', 'timm/x'), ('--arch', 'densenet161', 'densenet161'),
    ('--pretrained', 'none', 'none'), ('--amp', 'bf16', 'bf16'), ('--device', 'cuda:1', 'cuda:1'),
]


@pytest.mark.parametrize(('flag', 'text', 'value'), ACCEPTED)
def test_a_right_value_arrives_with_its_type(parsed, flag, text, value):
    found = getattr(parsed(flag, text), flag.removeprefix('--'))
    assert found == (value.absolute() if isinstance(value, Path) else value)
    assert type(found) is type(value)


@pytest.mark.parametrize(('text', 'value'), [
    ('true', True), ('True', True), ('1', True), ('yes', True),
    ('false', False), ('False', False), ('0', False), ('no', False)])
def test_a_boolean_is_what_it_says(parsed, text, value):
    assert parsed('--nesterov', text).nesterov is value


def test_switches_are_off_unless_given(parsed, tmp_path):
    assert (parsed().resume, parsed().skip_bad, parsed().tf32) == ('no', False, False)
    given = parsed('--resume', '--skip_bad', '--tf32')
    assert (given.resume, given.skip_bad, given.tf32) == ('yes', True, True)
    test = make_parser(tmp_path, 'test')
    assert (parsed(parser=test).sweep, parsed('--sweep', parser=test).sweep) == (False, True)


@pytest.mark.parametrize('value', FRACTION)
def test_a_threshold_is_a_fraction(parsed, tmp_path, value):
    test = make_parser(tmp_path, 'test')
    assert '--threshold' in complaint(parsed, f'--threshold={value}', parser=test)
    assert parsed('--threshold', '0.999', parser=test).threshold == 0.999


def test_pretrained_weights_are_not_wanted_where_others_replace_them(parsed, tmp_path):
    assert parsed('--resume', 'auto').pretrained == 'auto'
    assert parsed('--snapshot', 'm').pretrained == 'none'
    assert parsed('--resume').pretrained == 'none'
    (tmp_path / 'out' / 'last.ckpt').touch()
    assert parsed('--resume', 'auto').pretrained == 'none'


def test_a_crop_must_fit_into_the_resized_image(parsed):
    message = complaint(parsed, '--resize', '100', '--crop', '101')
    assert '--crop 101' in message
    assert '--resize 100' in message
    assert '--crop 224' in complaint(parsed, '--resize', '100')
    assert parsed('--resize', '100', '--crop', '100').crop == 100


def test_a_missing_data_folder_is_named(parsed, tmp_path):
    missing = tmp_path / 'absent'
    assert str(missing) in complaint(parsed, '--datapath', str(missing))
    (tmp_path / 'file').write_text('')
    complaint(parsed, '--datapath', str(tmp_path / 'file'))


def test_a_savepath_that_cannot_be_is_an_input_error_before_the_work(parsed, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    for path in ('file', 'file/out'):
        assert path in complaint(parsed, '--savepath', path)


def test_a_seed_is_used_or_refused_however_large(parsed):
    """2^64 is more than PyTorch takes."""
    assert parsed('--seed', str(2 ** 31)).seed == 2 ** 31
    assert '--seed' in complaint(parsed, '--seed', str(2 ** 64))


def test_masks_lie_in_the_data_folder_unless_told(parsed, tmp_path):
    assert parsed().maskpath == tmp_path / 'mask'
    assert parsed('--maskpath', 'elsewhere').maskpath == Path('elsewhere').absolute()


def test_the_snapshot_of_a_test_lies_in_the_savepath_unless_told(parsed, tmp_path):
    test = make_parser(tmp_path, 'test')
    assert parsed(parser=test).snapshot == tmp_path / 'out' / 'model-7'
    assert parsed('--savepath', 's', parser=test).snapshot == Path('s/model-7').absolute()
    assert parsed('--snapshot', 'm', '--savepath', 's', parser=test).snapshot == Path(
        'm').absolute()


def test_training_starts_from_no_snapshot_unless_told(parsed):
    assert parsed().snapshot is None


@pytest.mark.parametrize(('present', 'expected'), [
    ((), 'stage/out/top1top5.npy'),
    (('stage/top1top5.npy',), 'stage/top1top5.npy'),
    (('stage/out/top1top5.npy',), 'stage/out/top1top5.npy'),
    (('stage/top1top5.npy', 'stage/out/top1top5.npy'), 'stage/out/top1top5.npy'),
])
def test_the_classifiers_result_is_looked_for_in_its_out_then_in_the_old_place(
        tmp_path, monkeypatch, present, expected):
    monkeypatch.setattr(utils.arguments, 'ROOT', tmp_path)
    for name in present:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    parser = Parser('Doc.')
    add_top1top5(parser, 'stage')
    assert parser.parse_args([]).top1top5 == tmp_path / expected


class Reached(BaseException):
    """Carries a script's parser out of it."""


@pytest.fixture
def script_parser(monkeypatch):
    """script_parser('cub200-cam/train.py') -> the parser that the script hands to `parse`."""
    def stop(parser):
        raise Reached(parser)

    def call(script, *flags):
        monkeypatch.setattr(utils.arguments, 'parse', stop)
        monkeypatch.setattr(sys, 'argv', [script, *flags])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        with pytest.raises(Reached) as caught:
            runpy.run_path(str(ROOT / script), run_name='stage')['main']()
        return caught.value.args[0]

    return call


TRAIN = {'mode': 'train', 'list': 'train.txt', 'momentum': 0.9, 'nesterov': True,
         'weight_decay': 1e-4, 'pretrained': 'auto', 'snapshot': None, 'resume': 'no',
         'amp': 'auto', 'device': 'auto', 'seed': 0}
TEST = {'mode': 'test', 'amp': 'off', 'device': 'auto', 'seed': 0}
CLS_TRAIN = {**TRAIN, 'arch': 'efficientnet_b7', 'batch_size': 16, 'resize': 685, 'crop': 600,
             'lr': 0.05, 'epoch': 20}
MFF_TRAIN = {**TRAIN, 'backbone': 'resnet50', 'resize': 256, 'crop': 224, 'lr': 0.02}
CLS_TEST = {**TEST, 'arch': 'efficientnet_b7', 'list': 'val.txt', 'resize': 685, 'crop': 0}
CAM_TEST = {**TEST, 'backbone': 'resnet50', 'list': None, 'resize': 256, 'crop': None}
SEG_TEST = {**TEST, 'backbone': 'resnet50', 'list': 'val.txt', 'resize': 256, 'crop': 224}
DEFAULTS = {
    'cub200-cls/train.py': CLS_TRAIN,
    'cub200-cls/test.py': {**CLS_TEST, 'default_snapshot': 'model-20'},
    'cub200-cam/train.py': {**MFF_TRAIN, 'batch_size': 64, 'epoch': 32},
    'cub200-cam/test.py': {**CAM_TEST, 'default_snapshot': 'model-32'},
    'cub200-seg/train.py': {**MFF_TRAIN, 'batch_size': 128, 'epoch': 8},
    'cub200-seg/test.py': {**SEG_TEST, 'default_snapshot': 'model-8', 'threshold': 0.2},
    'imagenet-cls/train.py': CLS_TRAIN,
    'imagenet-cls/test.py': {**CLS_TEST, 'pretrained': 'auto'},
    'imagenet-cam/train.py': {**MFF_TRAIN, 'batch_size': 128, 'epoch': 1},
    'imagenet-cam/test.py': {**CAM_TEST, 'default_snapshot': 'model-6000'},
    'imagenet-seg/train.py': {**MFF_TRAIN, 'batch_size': 128, 'epoch': 1},
    'imagenet-seg/test.py': {**SEG_TEST, 'default_snapshot': 'model-6000', 'threshold': 0.8},
}
scripts = pytest.mark.parametrize('script', DEFAULTS)


@scripts
def test_a_stage_scripts_defaults_are_the_papers(script_parser, script):
    expected = dict(DEFAULTS[script])
    cub = script.startswith('cub200')
    expected['clsnum'] = 200 if cub else 1000
    expected['datapath'] = ROOT / 'dataset' / ('CUB_200_2011' if cub else 'ImageNet2012')
    expected['savepath'] = ROOT / Path(script).parent / 'out'
    found = vars(script_parser(script).parse_args([]))
    assert {name: found.get(name, 'no such flag') for name in expected} == expected


@scripts
def test_a_stage_script_has_the_authors_flags(script_parser, script):
    flags = {'datapath', 'savepath', 'mode', 'list', 'clsnum', 'batch_size', 'num_workers',
             'snapshot', 'resize', 'crop', 'amp', 'device', 'seed'}
    stage, task = Path(script).parent.name.split('-')[1], Path(script).stem
    flags |= {'arch'} if stage == 'cls' else {'backbone'}
    if task == 'train':
        flags |= {'lr', 'epoch', 'weight_decay', 'momentum', 'nesterov', 'pretrained', 'resume'}
    if (stage, task) == ('seg', 'test'):
        flags |= {'top1top5', 'threshold'}
    if (stage, task) in {('seg', 'train'), ('cam', 'test')}:
        flags |= {'maskpath'}
    assert flags <= vars(script_parser(script).parse_args([])).keys()


@scripts
def test_a_stage_scripts_help_names_its_flags(script_parser, script):
    text = script_parser(script).format_help()
    for flag in ('--datapath', '--savepath', '--batch_size', '--snapshot'):
        assert flag in text


@pytest.mark.parametrize('script', ['cub200-cam/test.py', 'imagenet-cam/test.py'])
def test_the_task_of_cam_test_decides_its_list_and_crop(script_parser, parsed, tmp_path, script):
    parser = script_parser(script)
    parser.set_defaults(datapath=tmp_path, savepath=tmp_path / 'out')
    masks = parsed(parser=parser)
    assert (masks.list, masks.crop) == ('train.txt', 0)
    cams = parsed('--evaluate', parser=parser)
    assert (cams.list, cams.crop, cams.threshold) == ('val.txt', 224, 0.2)
    given = parsed('--evaluate', '--list', 'l.txt', '--crop', '0', parser=parser)
    assert (given.list, given.crop) == ('l.txt', 0)
    assert '--crop 32' in complaint(parsed, '--crop', '32', parser=parser)
    for flag in ('--sweep', '--save_maps'):
        assert f'{flag} needs --evaluate' in complaint(parsed, flag, parser=parser)


@pytest.fixture
def tested(parsed, tmp_path):
    """tested({'resize': 166}, '--crop', '9') -> the arguments of a test script whose checkpoint,
    model-7, was trained with these."""
    def call(recorded, *flags, parser=None):
        (tmp_path / 'out').mkdir(exist_ok=True)
        (tmp_path / 'out' / 'model-7').touch()
        (tmp_path / 'out' / 'model-7.json').write_text(json.dumps(recorded))
        return parsed(*flags, parser=parser or make_parser(tmp_path, 'test'))

    return call


RECORDED = {'backbone': 'timm/x', 'resize': 166, 'crop': 144, 'clsnum': 3, 'threshold': 0.8,
            'batch_size': 5, 'class_names': ['a', 'b', 'c'], 'arch': None}


def test_a_test_script_is_told_what_the_training_was(tested, capsys):
    args = tested(RECORDED)
    assert {name: getattr(args, name) for name in ('backbone', 'arch', 'resize', 'crop', 'clsnum',
                                                   'threshold', 'batch_size')} == {
        'backbone': 'timm/x', 'arch': 'efficientnet_b7', 'resize': 166, 'crop': 144, 'clsnum': 3,
        'threshold': 0.8, 'batch_size': 64}
    assert capsys.readouterr().out == (
        'model-7: trained with: --backbone timm/x, --resize 166, --crop 144, --clsnum 3, '
        '--threshold 0.8\n')


def test_what_is_given_stands_and_is_named_where_it_differs(tested, capsys):
    args = tested(RECORDED, '--resize', '256', '--crop=144', '--threshold', '0.5', '--backbone',
                  'timm/x', '--clsnum', '3')
    assert (args.resize, args.crop, args.threshold) == (256, 144, 0.5)
    assert capsys.readouterr().out == (
        'model-7: given differently from its training: --resize 256 (training: 166)\n')


def test_without_a_record_the_papers_defaults_hold(tested, capsys):
    args = tested({})
    assert (args.backbone, args.resize, args.crop) == ('resnet50', 256, 224)
    assert capsys.readouterr().out == ''


def test_the_arguments_of_the_run_stand_in_for_a_missing_record(parsed, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'results.json').write_text(json.dumps(
        {'training': {'arguments': {'resize': 166, 'crop': 144}}, 'arguments': {'resize': 99}}))
    args = parsed(parser=make_parser(tmp_path, 'test'))
    assert (args.resize, args.crop) == (166, 144)


def test_a_record_with_a_wrong_value_is_an_input_error(tested):
    assert 'large' in complaint(tested, {'resize': 'large'})


@pytest.mark.parametrize(('script', 'flags', 'crop'), [
    ('cub200-cam/test.py', (), 0), ('cub200-cam/test.py', ('--evaluate',), 144),
    ('imagenet-cam/test.py', (), 0), ('cub200-cls/test.py', (), 0),
    ('cub200-seg/test.py', (), 144), ('imagenet-seg/test.py', (), 144)])
def test_whole_images_stay_whole(script_parser, tested, tmp_path, script, flags, crop):
    parser = script_parser(script)
    parser.set_defaults(datapath=tmp_path, savepath=tmp_path / 'out', default_snapshot='model-7')
    args = tested(RECORDED, *flags, parser=parser)
    assert (args.resize, args.crop) == (166, crop)


def test_where_the_default_checkpoint_is_missing_those_there_are_named(parsed, tmp_path):
    (tmp_path / 'out').mkdir()
    for name in ('model-12', 'model-9', 'model-9.json'):
        (tmp_path / 'out' / name).touch()
    message = complaint(parsed, parser=make_parser(tmp_path, 'test'))
    assert message.endswith('model-7; there are model-9, model-12: choose one with --snapshot')


def test_help_is_in_groups_with_paths_from_the_repository(script_parser):
    text = script_parser('cub200-seg/test.py').format_help()
    titles = [line[:-1] for line in text.splitlines() if re.fullmatch('[a-z ]+:', line)]
    assert titles == ['options', 'data', 'network', 'evaluation', 'output', 'advanced']
    assert '(default: cub200-seg/out)' in text
    assert str(ROOT) not in text


def test_one_class_leaves_nothing_to_tell_apart(parsed):
    assert 'the softmax is always 1' in complaint(parsed, '--clsnum', '1')


HEAVY = {'torch', 'torchvision', 'timm', 'albumentations', 'matplotlib'}


@pytest.mark.parametrize(('script', 'flag'), [
    *((script, '--help') for script in (
        *DEFAULTS, 'dataset/make_mini.py', 'dataset/prepare_cub.py', 'dataset/prepare_imagenet.py',
        'tools/report.py', 'tools/benchmark.py')),
    ('cub200-cam/train.py', '--no_such_flag'), ('dataset/make_mini.py', '--no_such_flag')])
def test_help_and_errors_in_arguments_do_not_wait_for_pytorch(script, flag, tmp_path):
    """And the project is found from any folder."""
    code = (f'import runpy, sys; sys.argv = [{script!r}, {flag!r}]\n'
            f'sys.path.insert(0, {str((ROOT / script).parent)!r})\n'
            f'try: runpy.run_path({str(ROOT / script)!r}, run_name="__main__")\n'
            f'finally: print(*({HEAVY!r} & set(sys.modules)), file=sys.stderr)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          check=False, cwd=tmp_path)
    assert done.returncode == (0 if flag == '--help' else 2)
    assert done.stderr.splitlines()[-1] == ''


@pytest.mark.parametrize('script', ['make_mini', 'prepare_cub', 'prepare_imagenet'])
def test_scripts_find_their_modules_where_python_does_not_look_beside_them(script, tmp_path):
    subprocess.run([sys.executable, ROOT / 'dataset' / f'{script}.py', '--help'], check=True,
                   cwd=tmp_path, capture_output=True, env={**os.environ, 'PYTHONSAFEPATH': '1'})


def test_making_a_data_set_needs_no_pytorch(tmp_path):
    code = ('import runpy, sys; sys.argv = ["make_mini.py", "--out", sys.argv[1], "--classes", '
            '"1", "--train", "1", "--val", "1", "--size", "64"]\n'
            f'sys.path.insert(0, {str(ROOT / "dataset")!r})\n'
            f'runpy.run_path({str(ROOT / "dataset" / "make_mini.py")!r}, run_name="__main__")\n'
            'assert "torch" not in sys.modules')
    subprocess.run([sys.executable, '-c', code, tmp_path / 'mini'], check=True)
