"""The command line of the test scripts: sizes and threshold as in the checkpoint's training."""

import argparse
import os
from typing import Any

import utils.arguments as shared
from utils.arguments import ROOT, Parser, absolute, fraction
from utils.errors import InputError, warn
from utils.results import newest_checkpoint, training_settings

RECORDED = ('backbone', 'arch', 'resize', 'crop', 'clsnum', 'threshold')
TEST_NOTE = """\
The defaults are the paper's. Unless they are given, backbone, sizes, --clsnum and --threshold are
those of the checkpoint's training (model-N.json beside model-N). --crop stays 0 where whole images
are tested: in cls, and for pseudo masks."""


def inference_parser(script: str, doc: str, *, snapshot: str | None, **defaults: Any) -> Parser:
    """The flags of a test script; `snapshot`: the paper's checkpoint, None if none is needed."""
    parser = shared.stage_parser(Parser(doc, TEST_NOTE), script, 'test', **defaults)
    parser.set_defaults(paper_snapshot=snapshot)
    add = parser.add_argument
    add('--snapshot', type=absolute, help="the checkpoint, ours or the authors' (default: the "
        f"newest model-N in SAVEPATH; the paper's is {snapshot})")
    add('--amp', choices=['auto', 'fp16', 'bf16', 'off'], default='off', help=shared.AMP)
    add('--num_workers', type=shared.nonnegative_int, default=0,
        help='on CPUs threads, on CUDA processes that read images; 0 = one per core')
    return parser


def _add_evaluation(parser: Parser, threshold: float) -> None:
    shared.add_backbone(parser)
    shared.add_maskpath(parser)
    shared.add_show(parser, 'show.png')
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
    ours, released = ROOT / cls / 'out' / 'top1top5.npy', ROOT / cls / 'top1top5.npy'
    add('--top1top5', type=lambda text: None if text == 'none' else absolute(text),
        default=released if released.is_file() and not ours.is_file() else ours,
        help="the cls stage's result, ours or the authors'; none = GT-known localization only")
    add('--select', metavar='LIST', help='also report at the threshold whose GT-known is best on '
        'the images of this list')


def parse(parser: Parser) -> argparse.Namespace:
    """Parse and check the command line, and fill in the defaults that depend on other flags and on
    the checkpoint; errors as `utils.arguments.checked`."""
    args = _with_defaults(parser.parse_args())
    if args.snapshot:
        args = _as_trained(parser, args)
    if not getattr(args, 'evaluate', True) and (args.crop or args.sweep or args.save_maps):
        raise InputError('--crop needs --evaluate, as do --sweep and --save_maps: pseudo masks are '
                         'made from whole images')
    return shared.checked(args)


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
