"""The command line of the stage scripts: typed flags, under the authors' names.

A script states its defaults and adds the groups of flags that it needs:

    parser = training_parser(__file__, __doc__, data='CUB_200_2011', clsnum=200, batch_size=64,
                             resize=256, crop=224, lr=0.02, epoch=32)
    add_backbone(parser)
    args = parse(parser)

Nothing here imports PyTorch, so that --help and errors in the arguments appear at once.
"""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import NoReturn, TypeVar

from utils.errors import InputError
from utils.outputs.files import make_output_folder
from utils.outputs.results import newest_checkpoint

ROOT = Path(__file__).resolve().parents[1]
AMP_HELP = ('mixed precision; auto: bf16 if the device supports it natively, else fp16 on CUDA and '
            'off on CPUs')
NETWORKS = ('cls', 'cam', 'seg')
Options = TypeVar('Options')


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that shows the script's docstring and reports errors as InputError."""

    def __init__(self, doc: str):
        super().__init__(description=doc, allow_abbrev=False, formatter_class=_Formatter)

    def error(self, message: str) -> NoReturn:
        raise InputError(f'{message} (see --help)')


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def training_parser(script: str, doc: str, *, data: str, clsnum: int, batch_size: int,
                    resize: int, crop: int, lr: float, epoch: int) -> Parser:
    """The flags of a training script; its default paths start from the script's own folder."""
    parser = _stage_parser(script, doc, 'train', data, 'train.txt', clsnum, batch_size, resize)
    add = parser.add_argument
    add('--crop', type=nonnegative_int, default=crop, help='size of the random crop; 0 = none')
    add('--lr', type=positive_float, default=lr,
        help='base learning rate; in cls and cam, pretrained layers train at a tenth of it')
    add('--epoch', type=positive_int, default=epoch, help='number of epochs')
    add('--max_steps', type=positive_int, help='stop after this many steps')
    add('--momentum', type=fraction, default=0.9, help='momentum of SGD')
    add('--nesterov', type=boolean, default=True, help='Nesterov momentum: true | false')
    add('--weight_decay', type=nonnegative_float, default=1e-4,
        help='weight decay, applied to all parameters')
    add_pretrained(parser)
    add('--snapshot', type=Path, help='start from the weights of this checkpoint')
    add('--amp', choices=['auto', 'fp16', 'bf16', 'off', 'apex'], default='auto', help=AMP_HELP)
    add('--tf32', action='store_true', help='allow TF32 in float32 layers on CUDA')
    add('--num_workers', type=nonnegative_int,
        help='data loading processes; 0 = the main process (default: one per core, at most 8; on '
             'CPUs two cores are left to the network)')
    add('--save_every', type=positive_int, metavar='N',
        help='also write last.ckpt every N steps, not only after each epoch')
    add('--resume', nargs='?', choices=['yes', 'auto', 'no'], const='yes', default='no',
        help='continue from last.ckpt; auto: continue if it exists, else start from scratch')
    return parser


def inference_parser(script: str, doc: str, *, data: str, list: str | None, clsnum: int,
                     batch_size: int, resize: int, crop: int | None) -> Parser:
    """The flags of a test script; its default paths start from the script's own folder."""
    parser = _stage_parser(script, doc, 'test', data, list, clsnum, batch_size, resize)
    add = parser.add_argument
    add('--crop', type=nonnegative_int, default=crop, help='size of the centre crop; 0 = none')
    add('--amp', choices=['auto', 'fp16', 'bf16', 'off'], default='off', help=AMP_HELP)
    add('--num_workers', type=nonnegative_int, default=0,
        help='threads, each of which processes parts of the list; 0 = one per core')
    add('--compile', type=boolean, nargs='?', const=True, default=False,
        help='compile the network first, which pays off on long lists')
    return parser


def _stage_parser(script: str, doc: str, mode: str, data: str, list: str | None, clsnum: int,
                  batch_size: int, resize: int) -> Parser:
    parser = Parser(doc)
    add = parser.add_argument
    add('--datapath', type=Path, default=ROOT / 'dataset' / data, help='the data folder')
    add('--savepath', type=Path, default=Path(script).resolve().parent / 'out',
        help='the output folder')
    add('--mode', choices=[mode], default=mode, help='fixed by the script')
    add('--list', default=list, help='the image list: a path, or a file in the data folder')
    add('--clsnum', type=positive_int, default=clsnum, help='number of classes')
    add('--batch_size', type=positive_int, default=batch_size,
        help='global batch size, summed over all ranks')
    add('--resize', type=positive_int, default=resize, help='images are resized to this square')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    add('--skip_bad', action='store_true',
        help='skip images that cannot be decoded, and list them in bad_images.txt')
    add('--seed', type=seed, default=0, help='seed of all random numbers')
    return parser


def add_backbone(parser: Parser) -> None:
    parser.add_argument('--backbone', default='resnet50',
                        help='resnet50 | resnet101 | resnet152 | timm/NAME')


def add_arch(parser: Parser) -> None:
    parser.add_argument('--arch', default='efficientnet_b7',
                        help='efficientnet_b7 | densenet161 | resnet50 | timm/NAME')


def add_pretrained(parser: Parser) -> None:
    parser.add_argument('--pretrained', default='auto',
                        help='ImageNet weights: auto (resource/, else a download) | none | a file')


def add_show(parser: Parser, picture: str) -> None:
    parser.add_argument('--show', type=nonnegative_int, default=12, metavar='N',
                        help=f'draw the first N images to {picture}; 0 = no picture')


def add_snapshot(parser: Parser, default: str) -> None:
    """The checkpoint of a test script; the default is a file in --savepath."""
    parser.add_argument('--snapshot', type=Path,
                        help=f"the checkpoint, ours or the authors' (default: SAVEPATH/{default})")
    parser.set_defaults(default_snapshot=default)


def add_maskpath(parser: Parser) -> None:
    parser.add_argument('--maskpath', type=Path, help='pseudo masks (default: DATAPATH/mask)')


def add_evaluation(parser: Parser, threshold: float) -> None:
    """The flags of a script that evaluates how well maps localize."""
    add = parser.add_argument
    add('--threshold', type=fraction, default=threshold,
        help='a pixel is foreground where the map exceeds this')
    add('--sweep', action='store_true', help='also report GT-known at thresholds 0, 0.01, ...')
    add('--metrics', choices=['all', 'paper'], default='all',
        help='paper: without MaxBoxAcc and PxAP, which need a second forward pass')
    add('--save_maps', action='store_true',
        help='write the score maps to SAVEPATH/maps, for tools/evaluate_maps.py')
    add_show(parser, 'show.png')


def add_cam_test(parser: Parser, threshold: float) -> None:
    """The flags of cam/test, which writes pseudo masks or evaluates the CAMs.

    Its --list and --crop have no default of their own: they depend on the task.
    """
    add_maskpath(parser)
    add = parser.add_argument
    add('--resume', action='store_true',
        help='keep existing pseudo masks, whichever checkpoint made them, where all masks of a '
             'part of the list exist')
    add('--evaluate', action='store_true',
        help='report how well the CAMs localize, instead of writing pseudo masks; --list and '
             '--crop then default to val.txt and 224, else to train.txt and 0')
    add_evaluation(parser, threshold)


def add_top1top5(parser: Parser, stage: str) -> None:
    """The classifier's result, by default in `<stage>/out/`, else where the authors put it."""
    folder = ROOT / stage
    places = [folder / 'out' / 'top1top5.npy', folder / 'top1top5.npy']
    parser.add_argument(
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


def parse(parser: Parser) -> argparse.Namespace:
    """Parse and check the command line, and fill in the defaults that depend on other flags.

    All paths become absolute, and the output folder is made. Raises InputError for invalid
    arguments.
    """
    args = parser.parse_args()
    _fill_defaults(args)
    _check(args)
    make_output_folder(args.savepath)
    return args


def _fill_defaults(args: argparse.Namespace) -> None:
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


def _check(args: argparse.Namespace) -> None:
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
