"""The command line of the stage scripts: typed flags, under the authors' names.

A script states its defaults in `training_parser` or `inference_parser`, adds the groups of flags
that it needs, and calls `parse`. Nothing here imports PyTorch, so that --help and errors in the
arguments appear at once.
"""

import argparse
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn

from utils.errors import InputError, warn
from utils.results import newest_checkpoint, training_settings

ROOT = Path(__file__).resolve().parents[1]
AMP = 'auto: bf16 where the device and the network gain from it, else fp16 on CUDA, off on CPUs'

RECORDED = ('backbone', 'arch', 'resize', 'crop', 'clsnum', 'threshold')
TEST_NOTE = """\
The defaults are the paper's. Unless they are given, backbone, sizes, --clsnum and --threshold are
those of the checkpoint's training (model-N.json beside model-N). --crop stays 0 where whole images
are tested: in cls, and for pseudo masks."""


class Parser(argparse.ArgumentParser):
    """Shows the script's docstring, and reports errors as InputError."""

    def __init__(self, doc: str, note: str | None = None):
        super().__init__(description=doc, epilog=note, allow_abbrev=False,
                         formatter_class=_Formatter)

    def error(self, message: str) -> NoReturn:
        raise InputError(f'{message} (see --help)')


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False:
            return action.help
        if isinstance(action.default, Path) and action.default.is_relative_to(ROOT):
            return f'{action.help} (default: {action.default.relative_to(ROOT)})'
        return super()._get_help_string(action)


def training_parser(script: str, doc: str, *, lr: float, epoch: int, **defaults: Any) -> Parser:
    """The flags of a training script; its default paths start from the script's own folder."""
    parser = stage_parser(Parser(doc), script, 'train', list='train.txt', **defaults)
    add = parser.add_argument
    add('--lr', type=positive_float, default=lr,
        help='base learning rate; in cls and cam, pretrained layers train at a tenth of it')
    add('--epoch', type=positive_int, default=epoch, help='number of epochs')
    add('--max_steps', type=positive_int, help='stop after this many steps')
    add('--momentum', type=fraction, default=0.9, help='momentum of SGD')
    add('--nesterov', type=boolean, default=True, help='Nesterov momentum: true | false')
    add('--weight_decay', type=nonnegative_float, default=1e-4, help='of all parameters')
    add('--snapshot', type=absolute, help='start from the weights of this checkpoint')
    add_pretrained(parser)
    add('--resume', nargs='?', choices=['yes', 'auto', 'no'], const='yes',
        help='continue from last.ckpt; auto: where it exists; no: start again')
    add('--save_every', type=positive_int, metavar='N',
        help='write last.ckpt every N steps, not only every minute')
    add('--amp', choices=['auto', 'fp16', 'bf16', 'off', 'apex'], default='auto', help=AMP)
    add('--tf32', action='store_true', help='allow TF32 in float32 layers on CUDA')
    add('--num_workers', type=nonnegative_int,
        help='processes that read images; 0 = the main process (default: all cores but two)')
    return parser


def inference_parser(script: str, doc: str, *, snapshot: str | None, **defaults: Any) -> Parser:
    """The flags of a test script; `snapshot`: the paper's checkpoint, None if none is needed."""
    parser = stage_parser(Parser(doc, TEST_NOTE), script, 'test', **defaults)
    parser.set_defaults(paper_snapshot=snapshot)
    add = parser.add_argument
    add('--snapshot', type=absolute, help="the checkpoint, ours or the authors' (default: the "
        f"newest model-N in SAVEPATH; the paper's is {snapshot})")
    add('--amp', choices=['auto', 'fp16', 'bf16', 'off'], default='off', help=AMP)
    add('--num_workers', type=nonnegative_int, default=0,
        help='on CPUs threads, on CUDA processes that read images; 0 = one per core')
    return parser


def add_evaluation(parser: Parser, threshold: float) -> None:
    add_backbone(parser)
    add_maskpath(parser)
    add = parser.add_argument
    add('--show', type=nonnegative_int, default=12, metavar='N',
        help='draw N images of the list to show.png; 0 = no picture')
    add('--sweep', action='store_true', help='also report GT-known at thresholds 0, 0.01, ...')
    add('--metrics', choices=['all', 'paper'], default='all',
        help='paper: without MaxBoxAcc and PxAP, which need a second forward pass')
    add('--save_maps', action='store_true',
        help='write the score maps to SAVEPATH/maps, for tools/evaluate_maps.py')
    parser.set_defaults(paper_threshold=threshold)


def add_cam_test(parser: Parser, threshold: float) -> None:
    """The flags of cam/test, which writes pseudo masks or evaluates the CAMs."""
    add_evaluation(parser, threshold)
    add = parser.add_argument
    add('--threshold', type=fraction, default=threshold,
        help='a pixel is foreground where the CAM exceeds this')
    add('--evaluate', action='store_true',
        help='report how well the CAMs localize, instead of writing pseudo masks; --list and '
             '--crop then default to val.txt and 224, else to train.txt and 0')
    add('--resume', action='store_true', help='keep the pseudo masks that are up to date')
    add('--overwrite', action='store_true', help="replace another run's pseudo masks")
    add('--no_prior', action='store_true', help='pseudo masks without the Gaussian prior')


def add_seg_test(parser: Parser, threshold: float, cls: str) -> None:
    """The flags of seg/test; `cls`: the folder of the classifier's stage."""
    add_evaluation(parser, threshold)
    add = parser.add_argument
    add('--threshold', type=lambda text: text if text == 'auto' else fraction(text),
        default=threshold, help='a pixel is foreground where its probability exceeds this; auto: '
        'chosen on training images without boxes, and recorded in model-N.json')
    ours, released = ROOT / cls / 'out' / 'top1top5.npy', ROOT / cls / 'top1top5.npy'
    add('--top1top5', type=lambda text: None if text == 'none' else absolute(text),
        default=released if released.is_file() and not ours.is_file() else ours,
        help="the cls stage's result, ours or the authors'; none = GT-known localization only")
    add('--select', metavar='LIST', help='also report at the threshold whose GT-known is best on '
        'the images of this list')


def stage_parser(parser: Parser, script: str, mode: str, *, data: str, list: str | None,
                  clsnum: int, batch_size: int, resize: int, crop: int | None) -> Parser:
    folder, add = Path(script).resolve().parent, parser.add_argument
    parser.set_defaults(stage=folder.name)
    add('--datapath', type=absolute, default=ROOT / 'dataset' / data, help='the data folder')
    add('--list', default=list, help='the image list: a path, or a file in the data folder')
    add('--savepath', type=absolute, default=folder / 'out', help='the output folder')
    add('--clsnum', type=positive_int, default=clsnum, help='number of classes')
    add('--resize', type=positive_int, default=resize, help='images are resized to this square')
    add('--crop', type=nonnegative_int, default=crop, help='size of the crop (random in training, '
        'else central); 0 = none')
    add('--batch_size', type=positive_int, default=batch_size, help='summed over all ranks')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    add('--seed', type=nonnegative_int, default=0, help='seed of all random numbers')
    add('--mode', choices=[mode], default=mode, help=argparse.SUPPRESS)  # the authors' flag
    return parser


def add_backbone(parser: Parser) -> None:
    parser.add_argument('--backbone', default='resnet50',
                        help='resnet50 | resnet101 | resnet152 | timm/NAME')


def add_arch(parser: Parser) -> None:
    parser.add_argument('--arch', default='efficientnet_b7',
                        help='efficientnet_b7 | densenet161 | resnet50 | timm/NAME')


def add_pretrained(parser: Parser) -> None:
    parser.add_argument('--pretrained', default='auto', help='ImageNet weights: auto (resource/, '
                        'else a download) | none | a file')


def add_fusion(parser: Parser) -> None:
    """The flags for the variants of Figure 1(b)."""
    add = parser.add_argument
    add('--stages', choices=['5', '45', '345', '2345'], default='345',
        help='the stages of the backbone that are fused')
    add('--fusion', choices=['multiply', 'add', 'concatenate'], default='multiply',
        help='how they are fused')
    add('--no_attention', action='store_true', help='without MCA')


def add_maskpath(parser: Parser) -> None:
    parser.add_argument('--maskpath', type=absolute, help='pseudo masks (default: DATAPATH/mask)')


def parse(parser: Parser) -> argparse.Namespace:
    """Parse and check the command line of a stage script, and fill in the defaults that depend on
    other flags and on the checkpoint; errors as `checked`."""
    args = parser.parse_args()
    if args.mode == 'train':
        last = args.resume in ('yes', 'auto') and (args.savepath / 'last.ckpt').is_file()
        if args.snapshot or last:
            args.pretrained = 'none'  # all weights come from that file
        return checked(args)
    args = _with_defaults(args)
    if args.snapshot:
        args = _as_trained(parser, args)
    if not getattr(args, 'evaluate', True) and (args.crop or args.sweep or args.save_maps):
        raise InputError('--crop needs --evaluate, as do --sweep and --save_maps: pseudo masks are '
                         'made from whole images')
    return checked(args)


def _with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    if 'evaluate' in args:
        args.list = args.list or ('val.txt' if args.evaluate else 'train.txt')
        if args.crop is None:
            args.crop = 224 if args.evaluate else 0
    if args.paper_snapshot and not args.snapshot:
        args.snapshot = newest_checkpoint(args.savepath) or args.savepath / args.paper_snapshot
    return args


def _as_trained(parser: Parser, args: argparse.Namespace) -> argparse.Namespace:
    """The command line parsed again, its defaults those of the checkpoint's training."""
    settings = training_settings(args.snapshot)
    recorded = {name: str(settings[name]) for name in RECORDED if name in args
                and settings.get(name) is not None and (name != 'crop' or args.crop)}
    parser.set_defaults(**recorded)
    args = _with_defaults(parser.parse_args())
    if recorded and os.environ.get('RANK', '0') in ('', '0'):
        print(f'{args.snapshot.name}: trained with '
              + ', '.join(f'--{name} {value}' for name, value in recorded.items()))
    for name, value in recorded.items():
        if name != 'threshold' and str(getattr(args, name)) != value:
            warn(f"--{name} {getattr(args, name)} overrides the training's {value}")
    return args


def checked(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments, with the place of the masks; makes the output folder. Raises InputError where
    they do not fit together, and OSError if the folder cannot be made or written."""
    faults = {
        '--clsnum 1: with one class the softmax is always 1 and the loss 0; add a class of images '
        'without the object': args.clsnum == 1,
        f'--crop {args.crop} is larger than --resize {args.resize}': args.crop > args.resize,
        '--momentum 0 has no Nesterov momentum: add --nesterov false':
            args.mode == 'train' and args.nesterov and not args.momentum,
        f'no data folder {args.datapath}: check --datapath (the README says how to make or prepare '
        'one)': not args.datapath.is_dir(),
        f"no checkpoint {args.snapshot}: run the stage's train.py first, or check --snapshot":
            args.snapshot and not args.snapshot.is_file()}
    for fault, applies in faults.items():
        if applies:
            raise InputError(fault)
    if 'maskpath' in args:
        args.maskpath = args.maskpath or args.datapath / 'mask'
    args.savepath.mkdir(parents=True, exist_ok=True)
    TemporaryFile(dir=args.savepath).close()  # before hours of work, not after
    return args


def _number(kind: type, valid: Callable[[Any], bool], description: str) -> Callable[[str], Any]:
    """An argparse type: a number of a kind that satisfies `valid`."""
    def parse_number(text: str) -> Any:
        with suppress(ValueError):
            if valid(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f'{text!r} is not {description}')

    return parse_number


nonnegative_int = _number(int, lambda value: 0 <= value < 2**63, 'an integer, 0 or more')
positive_int = _number(int, lambda value: value > 0, 'an integer above 0')
positive_float = _number(float, lambda value: 0 < value < float('inf'), 'a number above 0')
nonnegative_float = _number(float, lambda value: 0 <= value < float('inf'), 'a number, 0 or more')
fraction = _number(float, lambda value: 0 <= value < 1, 'a number from 0 to below 1')


def absolute(text: str) -> Path:
    return Path(text).absolute()


def boolean(text: str) -> bool:
    if text.lower() not in ('true', 'false'):
        raise argparse.ArgumentTypeError(f'{text!r} is not true or false')
    return text.lower() == 'true'
