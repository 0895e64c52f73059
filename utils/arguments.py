"""The command line of the stage scripts: typed flags, under the authors' names.

A script says which groups of flags it has and its defaults:

    parser = stage_parser(__file__, __doc__, mode='train', data='CUB_200_2011', list='train.txt',
                          clsnum=200, batch_size=64, resize=256, crop=224)
    add_backbone(parser)
    add_training(parser, lr=0.02, epoch=32)
    args = parse(parser)
"""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

import torch

from utils.engine.distributed import join, process_count, started_by_torchrun
from utils.engine.runtime import available_cores, choose_device
from utils.errors import InputError
from utils.outputs.files import make_output_folder

ROOT = Path(__file__).resolve().parents[1]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that shows the script's docstring and complains in one line."""

    def __init__(self, doc: str):
        super().__init__(description=doc, allow_abbrev=False,
                         formatter_class=_Formatter)

    def error(self, message: str) -> NoReturn:
        raise InputError(f'{message} (see --help)')


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def stage_parser(script: str, doc: str, *, mode: str, data: str, list: str, clsnum: int,
                 batch_size: int, resize: int, crop: int) -> Parser:
    """The flags that all stage scripts have; paths start from the script's own place."""
    parser = Parser(doc)
    add = parser.add_argument
    add('--datapath', type=Path, default=ROOT / 'dataset' / data, help='the data folder')
    add('--savepath', type=Path, default=Path(script).resolve().parent / 'out',
        help='where outputs go')
    add('--mode', choices=[mode], default=mode, help="the script's own mode")
    add('--list', default=list, help='the image list: a path, or a file in the data folder')
    add('--clsnum', type=positive_int, default=clsnum, help='number of classes')
    add('--batch_size', type=positive_int, default=batch_size, help='images per step')
    add('--resize', type=positive_int, default=resize, help='images become this size, square')
    add('--crop', type=natural, default=crop,
        help=f'{"random" if mode == "train" else "centre"} crop of it; 0 = none')
    if mode == 'train':
        add('--num_workers', type=natural, default=default_workers(),
            help='processes that read images; 0 = none but the main one')
    else:
        add('--num_workers', type=natural, default=0,
            help='parts of the list that are in work at once; 0 = one a core')
        add('--compile', type=boolean, nargs='?', const=True, default=False,
            help='compile the network first: worth its minute on long lists')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    add('--amp', choices=['auto', 'fp16', 'bf16', 'off', 'apex'],
        default='auto' if mode == 'train' else 'off',
        help='mixed precision; auto: fp16 on CUDA, bf16 where the CPU has it, else off')
    add('--skip_bad', action='store_true',
        help='leave out images that cannot be decoded, and list them in bad_images.txt')
    add('--seed', type=seed, default=0, help='fixes all that is random')
    return parser


def default_workers() -> int:
    """With CUDA a reader a core, else the cores that a network on two of them leaves: on the CPU
    readers and network are in each other's way. At most 8."""
    cores = available_cores()
    return min(8, cores if torch.cuda.is_available() else max(0, cores - 2))


def add_backbone(parser: Parser) -> None:
    parser.add_argument('--backbone', default='resnet50',
                        help='resnet50 | resnet101 | resnet152 | timm/NAME')


def add_arch(parser: Parser) -> None:
    parser.add_argument('--arch', default='efficientnet_b7',
                        help='efficientnet_b7 | densenet161 | resnet50 | timm/NAME')


def add_training(parser: Parser, *, lr: float, epoch: int) -> None:
    """The flags of the training scripts."""
    add = parser.add_argument
    add('--lr', type=positive_float, default=lr, help='learning rate of the new layers')
    add('--epoch', type=positive_int, default=epoch, help='number of epochs')
    add('--max_steps', type=positive_int, help='stop after so many steps (default: none)')
    add('--momentum', type=fraction, default=0.9, help='momentum of SGD')
    add('--nesterov', type=boolean, default=True, help="Nesterov's momentum: true | false")
    add('--weight_decay', type=not_negative_float, default=1e-4, help='on every parameter')
    add_pretrained(parser)
    add('--snapshot', type=Path, help='start from this whole model')
    add('--save_every', type=positive_int,
        help='write last.ckpt every so many steps too, not only after each epoch')
    add_resume(parser, 'go on from last.ckpt')


def add_resume(parser: Parser, what: str) -> None:
    parser.add_argument('--resume', action='store_true', help=what)


def add_pretrained(parser: Parser) -> None:
    parser.add_argument('--pretrained', default='auto',
                        help='ImageNet weights: auto (resource/, else a download) | none | a file')


def add_snapshot(parser: Parser, default: str) -> None:
    """The test scripts' checkpoint; the default is a file in --savepath."""
    parser.add_argument('--snapshot', type=Path,
                        help=f'the checkpoint, ours or the authors\' (default: SAVEPATH/{default})')
    parser.set_defaults(default_snapshot=default)


def add_maskpath(parser: Parser) -> None:
    parser.add_argument('--maskpath', type=Path, help='pseudo masks (default: DATAPATH/mask)')


def add_evaluation(parser: Parser, threshold: float) -> None:
    add = parser.add_argument
    add('--threshold', type=fraction, default=threshold, help='foreground is what exceeds it')
    add('--sweep', action='store_true', help='GT-known at all thresholds 0, 0.01, ... as well')


def add_evaluate(parser: Parser) -> None:
    """cam/test's second task, for which other images are the default."""
    add_evaluation(parser, threshold=0.2)
    parser.add_argument('--evaluate', action='store_true',
                        help='locate with the CAMs; --list and --crop default to val.txt and 224')
    if '--evaluate' in sys.argv:
        parser.set_defaults(list='val.txt', crop=224)


def add_top1top5(parser: Parser, stage: str) -> None:
    """The classifier's result, by default in `<stage>/out/`, else where the authors put it."""
    folder = ROOT / stage
    places = [folder / 'out' / 'top1top5.npy', folder / 'top1top5.npy']
    parser.add_argument(
        '--top1top5', type=lambda text: None if text == 'none' else Path(text),
        default=next((place for place in places if place.is_file()), places[0]),
        help="the cls stage's result, ours or the authors'; none = GT-known alone")


def parse(parser: Parser) -> argparse.Namespace:
    """Parse the command line, fill in the defaults that hang on other flags, and check them.

    Joins the other processes where torchrun started several, and seeds PyTorch, so that networks
    built next start from the same weights each time.
    """
    args = parser.parse_args()
    if started_by_torchrun():
        join(choose_device(args.device))
    if args.crop > args.resize:
        raise InputError(f'--crop {args.crop} is larger than --resize {args.resize}')
    if args.mode == 'train' and args.batch_size < 2 * process_count():
        raise InputError(f'--batch_size {args.batch_size}: batch norm needs at least 2 images '
                         f'in each of {process_count()} processes to train')
    if args.mode == 'train' and args.nesterov and not args.momentum:
        raise InputError('--momentum 0 has no Nesterov momentum: add --nesterov false')
    for name, value in vars(args).items():
        if isinstance(value, Path):
            setattr(args, name, value.absolute())
    if not args.datapath.is_dir():
        raise InputError(f'no data folder {args.datapath}: check --datapath '
                         '(the README says how to make or prepare one)')
    if getattr(args, 'maskpath', ROOT) is None:
        args.maskpath = args.datapath / 'mask'
    if hasattr(args, 'default_snapshot') and args.snapshot is None:
        args.snapshot = args.savepath / args.default_snapshot
    if args.mode == 'train' and (args.snapshot or args.resume):
        args.pretrained = 'none'  # every weight comes from there
    make_output_folder(args.savepath)
    torch.manual_seed(args.seed)
    return args


def list_path(args: argparse.Namespace) -> Path:
    """The list file: in the data folder; a path with a folder may also be as given."""
    inside, given = args.datapath / args.list, Path(args.list)
    return given if given.is_file() and given.name != args.list else inside


def natural(text: str) -> int:
    return _number(text, int, lambda value: value >= 0, 'an integer, 0 or more')


def seed(text: str) -> int:
    return _number(text, int, lambda value: 0 <= value < 2**63, 'an integer from 0 to 2^63 - 1')


def positive_int(text: str) -> int:
    return _number(text, int, lambda value: value > 0, 'an integer above 0')


def positive_float(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < float('inf'), 'a number above 0')


def not_negative_float(text: str) -> float:
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
