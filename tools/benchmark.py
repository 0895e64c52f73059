"""How fast the stages are: their scripts on JPEGs of 500 x 375, beside the bare network.

    python tools/benchmark.py                     all: stages, then hot functions (15 minutes)
    python tools/benchmark.py functions           the hot functions beside plain code
    python tools/benchmark.py cam/test seg/test   some stages
    python tools/benchmark.py plain               cam/test beside a plain program
    python tools/benchmark.py training            half precision beside float32

Each script runs as a process of its own on a short and on a long list; images/s are those of the
difference, start-up apart. `bare` is the same network at the same precision and batch on data in
memory, and nothing else (for the tests the faster of one loop on all cores and a loop for each
core). Weights are random, but for the projections of stages 3 and 4, which give ones everywhere:
so maps are about as smooth as trained ones, on whose contours post-processing spends its time.
Prints ratios of one run; where an output differs from the plain code's, exits with 1.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import Parser, boolean, nonnegative_int, positive_int
from utils.errors import InputError, run

STAGES = ('cls/train', 'cls/test', 'cam/train', 'cam/test', 'seg/train', 'seg/test')
TASKS = (*STAGES, 'plain', 'training', 'functions')


def main():
    args = parse()

    import torch

    from tools.measurements import Bench, compare_functions

    if set(args.tasks) != {'functions'}:
        print(f'{args.backbone}, --amp {args.amp}, batch {args.batch_size}, '
              f'{len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}')
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        stages = [task for task in STAGES if task in args.tasks]
        if stages:
            bench.compare_stages(stages)
        if 'plain' in args.tasks:
            bench.compare_plain()
        if 'training' in args.tasks:
            bench.compare_training()
    if 'functions' in args.tasks and not compare_functions():
        sys.exit(1)


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('tasks', nargs='*', metavar='task', help=f'of {", ".join(TASKS)}; default: all')
    add('--backbone', default='resnet50', help='resnet50 | resnet101 | resnet152 | timm/NAME')
    add('--amp', choices=['auto', 'bf16', 'fp16', 'off'], default='auto', help='as in the stages')
    add('--batch_size', type=positive_int, default=16, help='images per step')
    add('--num_workers', type=nonnegative_int, help="default: the stages' own")
    add('--compile', type=boolean, nargs='?', const=True, default=False, help='of the tests')
    add('--images', type=positive_int, default=192, help='that the long list has more')
    add('--device', default='auto', help='auto | cpu | cuda')
    add('--photos', type=Path, help='cut-outs and backgrounds for the JPEGs; default: drawn ones')
    args = parser.parse_args()
    unknown = set(args.tasks) - set(TASKS)
    if unknown:
        raise InputError(f'no task {", ".join(sorted(unknown))}: choose from {", ".join(TASKS)}')
    args.tasks = args.tasks or list(TASKS)
    return args



if __name__ == '__main__':
    run(main)
