"""The command line of the stage scripts: typed flags, under the authors' names.

A script states its defaults and adds the groups of flags that it needs:

    parser = training_parser(__file__, __doc__, data='CUB_200_2011', clsnum=200, batch_size=64,
                             resize=256, crop=224, lr=0.02, epoch=32)
    add_backbone(parser)
    args = parse(parser)

Nothing here imports PyTorch, so that --help and errors in the arguments appear at once.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import NoReturn, TypeVar

from utils.errors import InputError
from utils.outputs.files import make_output_folder
from utils.outputs.results import newest_checkpoint
from utils.stages.run_settings import training_settings

ROOT = Path(__file__).resolve().parents[1]
AMP_HELP = ('mixed precision; auto: bf16 if the device supports it natively and the network gains '
            'from it, else fp16 on CUDA and off on CPUs')
# What a test script takes from the training of its checkpoint.
RECORDED = ('backbone', 'arch', 'resize', 'crop', 'clsnum', 'threshold')
TEST_NOTE = """\
The defaults are the paper's. Unless they are given, backbone, sizes, --clsnum and --threshold are
those of the checkpoint's training where it is recorded (model-N.json, results.json). --crop stays 0
where whole images are tested: in cls, and for pseudo masks."""
NETWORKS = ('cls', 'cam', 'seg')
Options = TypeVar('Options')


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that shows the script's docstring and reports errors as InputError."""

    def __init__(self, doc: str, note: str | None = None):
        super().__init__(description=doc, epilog=note, allow_abbrev=False,
                         formatter_class=_Formatter)

    def adder(self, title: str) -> Callable[..., argparse.Action]:
        """`add_argument` for the flags that --help shows under this title."""
        groups = {group.title: group for group in self._action_groups}
        return (groups.get(title) or self.add_argument_group(title)).add_argument

    def error(self, message: str) -> NoReturn:
        raise InputError(f'{message} (see --help)')


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False:
            return action.help
        if isinstance(action.default, Path) and action.default.is_relative_to(ROOT):
            return f'{action.help} (default: {action.default.relative_to(ROOT)})'
        return super()._get_help_string(action)


def training_parser(script: str, doc: str, *, data: str, clsnum: int, batch_size: int,
                    resize: int, crop: int, lr: float, epoch: int) -> Parser:
    """The flags of a training script; its default paths start from the script's own folder."""
    parser = _stage_parser(Parser(doc), script, 'train', data, 'train.txt', clsnum, batch_size,
                           resize, crop)
    add_pretrained(parser)
    network, training, output, advanced = map(
        parser.adder, ('network', 'training', 'output', 'advanced'))
    network('--snapshot', type=Path, help='start from the weights of this checkpoint')
    training('--lr', type=positive_float, default=lr,
             help='base learning rate; in cls and cam, pretrained layers train at a tenth of it')
    training('--epoch', type=positive_int, default=epoch, help='number of epochs')
    training('--max_steps', type=positive_int, help='stop after this many steps')
    training('--momentum', type=fraction, default=0.9, help='momentum of SGD')
    training('--nesterov', type=boolean, default=True, help='Nesterov momentum: true | false')
    training('--weight_decay', type=nonnegative_float, default=1e-4,
             help='weight decay, applied to all parameters')
    training('--resume', nargs='?', choices=['yes', 'auto', 'no'], const='yes', default='no',
             help='continue from last.ckpt; auto: continue if it exists, else start from scratch')
    output('--save_every', type=positive_int, metavar='N',
           help='also write last.ckpt every N steps, not only after each epoch')
    advanced('--amp', choices=['auto', 'fp16', 'bf16', 'off', 'apex'], default='auto',
             help=AMP_HELP)
    advanced('--tf32', action='store_true', help='allow TF32 in float32 layers on CUDA')
    advanced('--num_workers', type=nonnegative_int,
             help='data loading processes; 0 = the main process (default: one per core, at most '
                  '16; on CPUs two cores are left to the network, and there are at most 8)')
    return parser


def inference_parser(script: str, doc: str, *, data: str, list: str | None, clsnum: int,
                     batch_size: int, resize: int, crop: int | None) -> Parser:
    """The flags of a test script; its default paths start from the script's own folder."""
    parser = _stage_parser(Parser(doc, TEST_NOTE), script, 'test', data, list, clsnum, batch_size,
                           resize, crop)
    advanced = parser.adder('advanced')
    advanced('--amp', choices=['auto', 'fp16', 'bf16', 'off'], default='off', help=AMP_HELP)
    advanced('--num_workers', type=nonnegative_int, default=0,
             help='threads, each of which processes chunks of the list; 0 = one per core')
    advanced('--compile', type=boolean, nargs='?', const=True, default=False,
             help='compile the network first, which pays off on long lists')
    return parser


def _stage_parser(parser: Parser, script: str, mode: str, path: str, list: str | None,
                  clsnum: int, batch_size: int, resize: int, crop: int | None) -> Parser:
    """The common flags; the groups are in the order in which --help shows them."""
    parser.set_defaults(stage=Path(script).resolve().parent.name)
    data, _, task, output, advanced = map(parser.adder, (
        'data', 'network', 'training' if mode == 'train' else 'evaluation', 'output', 'advanced'))
    data('--datapath', type=Path, default=ROOT / 'dataset' / path, help='the data folder')
    data('--list', default=list, help='the image list: a path, or a file in the data folder')
    data('--clsnum', type=positive_int, default=clsnum, help='number of classes')
    data('--resize', type=positive_int, default=resize, help='images are resized to this square')
    data('--crop', type=nonnegative_int, default=crop,
         help=f'size of the {"random" if mode == "train" else "centre"} crop; 0 = none')
    data('--skip_bad', action='store_true',
         help='skip images that cannot be decoded, and list them in bad_images.txt')
    task('--batch_size', type=positive_int, default=batch_size,
         help='global batch size, summed over all ranks')
    output('--savepath', type=Path, default=Path(script).resolve().parent / 'out',
           help='the output folder')
    advanced('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    advanced('--seed', type=seed, default=0, help='seed of all random numbers')
    advanced('--mode', choices=[mode], default=mode, help='fixed by the script')
    return parser


def add_backbone(parser: Parser) -> None:
    parser.adder('network')('--backbone', default='resnet50',
                            help='resnet50 | resnet101 | resnet152 | timm/NAME')


def add_arch(parser: Parser) -> None:
    parser.adder('network')('--arch', default='efficientnet_b7',
                            help='efficientnet_b7 | densenet161 | resnet50 | timm/NAME')


def add_pretrained(parser: Parser) -> None:
    parser.adder('network')('--pretrained', default='auto', help='ImageNet weights: auto '
                            '(resource/, else a download) | none | a file')


def add_show(parser: Parser, picture: str) -> None:
    parser.adder('output')('--show', type=nonnegative_int, default=12, metavar='N',
                           help=f'draw N images of the list to {picture}; 0 = no picture')


def add_snapshot(parser: Parser, default: str) -> None:
    """The checkpoint of a test script; the default is a file in --savepath."""
    parser.adder('network')(
        '--snapshot', type=Path,
        help=f"the checkpoint, ours or the authors' (default: SAVEPATH/{default})")
    parser.set_defaults(default_snapshot=default)


def add_maskpath(parser: Parser) -> None:
    parser.adder('data')('--maskpath', type=Path, help='pseudo masks (default: DATAPATH/mask)')


def add_evaluation(parser: Parser, threshold: float) -> None:
    """The flags of a script that evaluates how well maps localize."""
    add = parser.adder('evaluation')
    add('--threshold', type=fraction, default=threshold,
        help='a pixel is foreground where the map exceeds this')
    add('--sweep', action='store_true', help='also report GT-known at thresholds 0, 0.01, ...')
    add('--metrics', choices=['all', 'paper'], default='all',
        help='paper: without MaxBoxAcc and PxAP, which need a second forward pass')
    add_show(parser, 'show.png')
    parser.adder('output')(
        '--save_maps', action='store_true',
        help='write the score maps to SAVEPATH/maps, for tools/evaluate_maps.py')


def add_cam_test(parser: Parser, threshold: float) -> None:
    """The flags of cam/test, which writes pseudo masks or evaluates the CAMs.

    Its --list and --crop have no default of their own: they depend on the task.
    """
    add_maskpath(parser)
    evaluation, output = map(parser.adder, ('evaluation', 'output'))
    evaluation('--evaluate', action='store_true',
               help='report how well the CAMs localize, instead of writing pseudo masks; --list '
                    'and --crop then default to val.txt and 224, else to train.txt and 0')
    add_evaluation(parser, threshold)
    output('--resume', action='store_true',
           help='keep the pseudo masks that this checkpoint has made, where all of a part of the '
                'list exist')
    output('--overwrite', action='store_true', help="replace another run's pseudo masks")


def add_top1top5(parser: Parser, stage: str) -> None:
    """The classifier's result, by default in `<stage>/out/`, else where the authors put it."""
    folder = ROOT / stage
    places = [folder / 'out' / 'top1top5.npy', folder / 'top1top5.npy']
    parser.adder('data')(
        '--top1top5', type=lambda text: None if text == 'none' else Path(text),
        default=next((place for place in places if place.is_file()), places[0]),
        help="the cls stage's result, ours or the authors'; none = GT-known localization only")


def add_checkpoints(parser: Parser) -> None:
    """The networks that predict, and how they are run."""
    add = parser.add_argument
    for stage in NETWORKS:
        add(f'--{stage}', type=Path, help=f'a checkpoint of the {stage} stage (default, if none '
            "of the three is given: demo.sh's)")
    add('--backbone', help='backbone of cam and seg (default: what their run has recorded, else '
        'resnet50)')
    add('--arch', help='architecture of cls (default: what its run has recorded, else '
        'efficientnet_b7)')
    add('--threshold', type=fraction, help='a pixel is foreground where the map exceeds this')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')


def demo_checkpoints() -> dict[str, Path]:
    """The checkpoints of demo.sh by their stages."""
    found = {}
    for stage in NETWORKS:
        folder = ROOT / f'cub200-{stage}' / 'out' / 'mini'
        found[stage] = newest_checkpoint(folder)
        if found[stage] is None:
            raise InputError(f'no checkpoint in {folder}: run demo.sh first, or give --cls, --cam '
                             'or --seg')
    return found


def add_select(parser: Parser) -> None:
    parser.add_argument('--select', metavar='LIST',
                        help='also report at the threshold whose GT-known is best on the images of '
                             'this list: a path, or a file in the data folder')


def parse(parser: Parser) -> argparse.Namespace:
    """Parse and check the command line, and fill in the defaults that depend on other flags and on
    the checkpoint.

    All paths become absolute, and the output folder is made. Raises InputError for invalid
    arguments.
    """
    args = _with_defaults(parser.parse_args())
    if args.mode == 'test' and args.snapshot:
        args = _as_trained(parser, args)
    _check(args)
    make_output_folder(args.savepath)
    return args


def _with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    for name, value in vars(args).items():
        if isinstance(value, Path):
            setattr(args, name, value.absolute())
    if 'evaluate' in args:
        args.list = args.list or ('val.txt' if args.evaluate else 'train.txt')
        if args.crop is None:
            args.crop = 224 if args.evaluate else 0
    if 'maskpath' in args:
        args.maskpath = args.maskpath or args.datapath / 'mask'
    if 'default_snapshot' in args:
        args.snapshot = args.snapshot or args.savepath / args.default_snapshot
    if args.mode == 'train' and (args.snapshot or _resumes(args)):
        args.pretrained = 'none'  # all weights come from that file
    return args


def _as_trained(parser: Parser, args: argparse.Namespace) -> argparse.Namespace:
    """The command line parsed again, its defaults those of the checkpoint's training. Prints what
    this changes, and what is given otherwise."""
    recorded = training_settings(args.snapshot)
    names = [name for name in RECORDED if name in args and recorded.get(name) is not None
             and (name != 'crop' or args.crop)]
    parser.set_defaults(**{name: str(recorded[name]) for name in names})
    result = _with_defaults(parser.parse_args())
    used = [f'--{name} {getattr(result, name)}' for name in names
            if getattr(args, name) != getattr(result, name)]
    given = [f'--{name} {getattr(result, name)} (training: {recorded[name]})' for name in names
             if name != 'threshold' and str(getattr(result, name)) != str(recorded[name])]
    if os.environ.get('RANK', '0') == '0':
        for what, flags in (('trained with', used), ('given differently from its training', given)):
            if flags:
                print(f'{args.snapshot.name}: {what}: {", ".join(flags)}')
    return result


def _check(args: argparse.Namespace) -> None:
    if args.clsnum == 1:
        raise InputError('--clsnum 1 leaves nothing to tell apart: with one class the softmax is '
                         'always 1 and the loss 0; add a class of images without the object')
    if 'evaluate' in args and not args.evaluate:
        if args.crop:
            raise InputError(f'--crop {args.crop} needs --evaluate: pseudo masks are made from '
                             'whole images')
        for name in ('sweep', 'save_maps'):
            if getattr(args, name):
                raise InputError(f'--{name} needs --evaluate: add it, or leave out --{name}')
    if args.crop > args.resize:
        raise InputError(f'--crop {args.crop} is larger than --resize {args.resize}')
    if args.mode == 'train' and args.nesterov and not args.momentum:
        raise InputError('--momentum 0 has no Nesterov momentum: add --nesterov false')
    if not args.datapath.is_dir():
        raise InputError(f'no data folder {args.datapath}: check --datapath '
                         '(the README says how to make or prepare one)')
    if args.snapshot and not args.snapshot.is_file():
        others = [path.name for path in args.snapshot.parent.glob('model-*') if not path.suffix]
        if others:
            raise InputError(f'no checkpoint {args.snapshot}; there are '
                             f'{", ".join(sorted(others, key=len))}: choose one with --snapshot')


def _resumes(args: argparse.Namespace) -> bool:
    if args.resume == 'auto':
        return (args.savepath / 'last.ckpt').is_file()
    return args.resume == 'yes'


def select(args: argparse.Namespace, kind: type[Options]) -> Options:
    """The arguments named like the fields of the dataclass `kind`, as an instance of it."""
    return kind(**{field.name: getattr(args, field.name) for field in fields(kind)})


def nonnegative_int(text: str) -> int:
    return _number(text, int, lambda value: value >= 0, 'an integer, 0 or more')


def seed(text: str) -> int:
    return _number(text, int, lambda value: 0 <= value < 2**63, 'an integer from 0 to 2^63 - 1')


def positive_int(text: str) -> int:
    return _number(text, int, lambda value: value > 0, 'an integer above 0')


def positive_float(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < float('inf'), 'a number above 0')


def nonnegative_float(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < float('inf'), 'a number, 0 or more')


def fraction(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < 1, 'a number from 0 to below 1')


def boolean(text: str) -> bool:
    values = {'true': True, '1': True, 'yes': True, 'false': False, '0': False, 'no': False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f'{text!r} is not true or false')
    return values[text.lower()]


def _number(text, kind, valid, description):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not valid(value):
        raise argparse.ArgumentTypeError(f'{text!r} is not {description}')
    return value
