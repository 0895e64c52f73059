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
from contextlib import suppress
from pathlib import Path
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
    parser = _stage_parser(Parser(doc), script, 'train', list='train.txt', **defaults)
    add = parser.add_argument
    add('--lr', type=positive_float, default=lr,
        help='base learning rate; in cls and cam, pretrained layers train at a tenth of it')
    add('--epoch', type=positive_int, default=epoch, help='number of epochs')
    add('--max_steps', type=positive_int, help='stop after this many steps')
    add('--momentum', type=fraction, default=0.9, help='momentum of SGD')
    add('--nesterov', type=boolean, default=True, help='Nesterov momentum: true | false')
    add('--weight_decay', type=nonnegative_float, default=1e-4, help='of all parameters')
    add('--snapshot', type=Path, help='start from the weights of this checkpoint')
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
    parser = _stage_parser(Parser(doc, TEST_NOTE), script, 'test', **defaults)
    parser.set_defaults(paper_snapshot=snapshot)
    add = parser.add_argument
    add('--snapshot', type=Path, help="the checkpoint, ours or the authors' (default: the newest "
        f"model-N in SAVEPATH; the paper's is {snapshot})")
    add('--amp', choices=['auto', 'fp16', 'bf16', 'off'], default='off', help=AMP)
    add('--num_workers', type=nonnegative_int, default=0,
        help='on CPUs threads, on CUDA processes that read images; 0 = one per core')
    return parser


def _stage_parser(parser: Parser, script: str, mode: str, *, data: str, list: str | None,
                  clsnum: int, batch_size: int, resize: int, crop: int | None) -> Parser:
    folder, add = Path(script).resolve().parent, parser.add_argument
    parser.set_defaults(stage=folder.name)
    add('--datapath', type=Path, default=ROOT / 'dataset' / data, help='the data folder')
    add('--list', default=list, help='the image list: a path, or a file in the data folder')
    add('--savepath', type=Path, default=folder / 'out', help='the output folder')
    add('--clsnum', type=positive_int, default=clsnum, help='number of classes')
    add('--resize', type=positive_int, default=resize, help='images are resized to this square')
    add('--crop', type=nonnegative_int, default=crop, help='size of the crop (random in training, '
        'else central); 0 = none')
    add('--batch_size', type=positive_int, default=batch_size, help='summed over all ranks')
    add('--skip_bad', action='store_true',
        help='skip images that cannot be decoded, and list them in bad_images.txt')
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
    """The variants of Figure 1(b)."""
    add = parser.add_argument
    add('--stages', choices=['5', '45', '345', '2345'], default='345',
        help='the stages of the backbone that are fused')
    add('--fusion', choices=['multiply', 'add', 'concatenate'], default='multiply',
        help='how they are fused')
    add('--no_attention', action='store_true', help='without MCA')


def add_maskpath(parser: Parser) -> None:
    parser.add_argument('--maskpath', type=Path, help='pseudo masks (default: DATAPATH/mask)')


def add_show(parser: Parser, picture: str) -> None:
    parser.add_argument('--show', type=nonnegative_int, default=12, metavar='N',
                        help=f'draw N images of the list to {picture}; 0 = no picture')


def _add_evaluation(parser: Parser, threshold: float) -> None:
    add_backbone(parser)
    add_maskpath(parser)
    add_show(parser, 'show.png')
    add = parser.add_argument
    add('--sweep', action='store_true', help='also report GT-known at thresholds 0, 0.01, ...')
    add('--metrics', choices=['all', 'paper'], default='all',
        help='paper: without MaxBoxAcc and PxAP, which need a second forward pass')
    add('--save_maps', action='store_true',
        help='write the score maps to SAVEPATH/maps, for tools/evaluate_maps.py')
    parser.set_defaults(paper_threshold=threshold)


def add_cam_test(parser: Parser, threshold: float) -> None:
    """The flags of cam/test, which writes pseudo masks or evaluates the CAMs."""
    _add_evaluation(parser, threshold)
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
    _add_evaluation(parser, threshold)
    add = parser.add_argument
    add('--threshold', type=lambda text: text if text == 'auto' else fraction(text),
        default=threshold, help='a pixel is foreground where its probability exceeds this; auto: '
        'chosen on training images without boxes, and recorded in model-N.json')
    places = [ROOT / cls / 'out' / 'top1top5.npy', ROOT / cls / 'top1top5.npy']
    add('--top1top5', type=lambda text: None if text == 'none' else Path(text),
        default=next((place for place in places if place.is_file()), places[0]),
        help="the cls stage's result, ours or the authors'; none = GT-known localization only")
    add('--select', metavar='LIST', help='also report at the threshold whose GT-known is best on '
        'the images of this list')


def parse(parser: Parser) -> argparse.Namespace:
    """Parse and check the command line, and fill in the defaults that depend on other flags and on
    the checkpoint. All paths become absolute, and the output folder is made.

    Raises InputError for invalid arguments, and OSError if the folder cannot be made.
    """
    args = _with_defaults(parser.parse_args())
    if args.mode == 'test' and args.snapshot:
        args = _as_trained(parser, args)
    _check(args)
    args.savepath.mkdir(parents=True, exist_ok=True)
    if not os.access(args.savepath, os.W_OK | os.X_OK):
        raise InputError(f'the output folder {args.savepath} is read-only: choose another')
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
    if args.mode == 'test':
        if args.paper_snapshot and not args.snapshot:
            args.snapshot = newest_checkpoint(args.savepath) or args.savepath / args.paper_snapshot
    elif args.snapshot or (
            args.resume in ('yes', 'auto') and (args.savepath / 'last.ckpt').is_file()):
        args.pretrained = 'none'  # all weights come from that file
    return args


def _as_trained(parser: Parser, args: argparse.Namespace) -> argparse.Namespace:
    """The command line parsed again, its defaults those of the checkpoint's training. Prints what
    this changes, and warns of what is given otherwise."""
    recorded = {name: str(value) for name, value in training_settings(args.snapshot).items()
                if name in RECORDED and name in args and value is not None
                and (name != 'crop' or args.crop)}
    parser.set_defaults(**recorded)
    result = _with_defaults(parser.parse_args())
    flags = {name: f'--{name} {getattr(result, name)}' for name in RECORDED if name in recorded}
    used = [flag for name, flag in flags.items() if getattr(args, name) != getattr(result, name)]
    overriding = [f'{flag} (training: {recorded[name]})' for name, flag in flags.items()
                  if name != 'threshold' and str(getattr(result, name)) != recorded[name]]
    if used and os.environ.get('RANK', '0') in ('', '0'):
        print(f'{args.snapshot.name}: trained with {", ".join(used)}')
    if overriding:
        warn(f'{args.snapshot.name}: {", ".join(overriding)} overrides the training\'s')
    return result


def _check(args: argparse.Namespace) -> None:
    if args.clsnum == 1:
        raise InputError('--clsnum 1 leaves nothing to tell apart: with one class the softmax is '
                         'always 1 and the loss 0; add a class of images without the object')
    for name in ('crop', 'sweep', 'save_maps'):
        if not getattr(args, 'evaluate', True) and getattr(args, name):
            raise InputError(f'--{name} needs --evaluate: pseudo masks are made from whole images')
    if args.crop > args.resize:
        raise InputError(f'--crop {args.crop} is larger than --resize {args.resize}')
    if args.mode == 'train' and args.nesterov and not args.momentum:
        raise InputError('--momentum 0 has no Nesterov momentum: add --nesterov false')
    if not args.datapath.is_dir():
        raise InputError(f'no data folder {args.datapath}: check --datapath '
                         '(the README says how to make or prepare one)')
    if args.snapshot and not args.snapshot.is_file():
        others = [path.name for path in args.snapshot.parent.glob('model-*') if not path.suffix]
        raise InputError(f'no checkpoint {args.snapshot}: ' + (
            f'choose one of {", ".join(sorted(others, key=len))} with --snapshot' if others else
            "run the stage's train.py first, or check --snapshot"))


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


def boolean(text: str) -> bool:
    if text.lower() not in ('true', 'yes', '1', 'false', 'no', '0'):
        raise argparse.ArgumentTypeError(f'{text!r} is not true or false')
    return text.lower() in ('true', 'yes', '1')
