"""Throughput of the stage scripts on JPEGs of 500 x 375, compared with the network alone.

    python tools/benchmark.py                     on the CPU: stages, hot functions (15 minutes)
    python tools/benchmark.py --device cuda       on a GPU: stages, readers, variants
    python tools/benchmark.py functions           the hot functions compared with plain code
    python tools/benchmark.py cam/test seg/test   some stages
    python tools/benchmark.py plain               cam/test compared with a plain program
    python tools/benchmark.py readers             how many readers keep the network busy
    python tools/benchmark.py variants            the network alone at each precision, and compiled

Each script runs as a process of its own on a short and on a long list. Throughput is the extra
images divided by the extra time, which excludes start-up. The seconds to the first batch are the
script's elapsed time on the short list, less that of the images beyond the first batch. The
network alone is the forward pass or the training step on data in memory, at the same precision
and batch size (for the tests, the faster of one loop on all cores and one loop per core). Weights
are random, except that the projections of stages 3 and 4 output ones everywhere: maps are then
about as smooth as those of a trained network, which decides how long post-processing takes. GPU
idle and GPU MB are those that nvidia-smi reports for the whole GPU. Prints Markdown tables. Exits
with 1 if a function's output differs from the plain code's.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import Parser, boolean, nonnegative_int, positive_int, select
from utils.errors import InputError, run

STAGES = ('cls/train', 'cls/test', 'cam/train', 'cam/test', 'seg/train', 'seg/test')
CPU_TASKS = (*STAGES, 'plain', 'functions')
GPU_TASKS = (*STAGES, 'readers', 'variants')
TASKS = tuple(dict.fromkeys((*CPU_TASKS, *GPU_TASKS)))


def main():
    args = parse()

    import torch

    from tools.benchmarks.devices import compare_readers, compare_variants
    from tools.benchmarks.functions import compare_functions
    from tools.benchmarks.stages import Bench, BenchOptions
    from utils.engine.device import choose_device

    device = choose_device('cuda' if 'gpu' in args.tasks else args.device)
    on_cuda = device.type == 'cuda'
    args.device = str(device)
    args.batch_size = args.batch_size or (64 if on_cuda else 16)
    args.images = args.images or (2048 if on_cuda else 192)
    tasks = set(args.tasks) - {'gpu'} or set(GPU_TASKS if on_cuda else CPU_TASKS)
    if tasks != {'functions'}:
        name = f'{torch.cuda.get_device_name(device)}, ' if on_cuda else ''
        print(f'{name}{len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}; '
              f'{args.backbone}, --amp {args.amp}, batch {args.batch_size}')
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(select(args, BenchOptions), Path(folder))
        stages = [stage for stage in STAGES if stage in tasks]
        if stages:
            bench.compare_stages(stages)
        if 'plain' in tasks:
            bench.compare_plain()
        if 'readers' in tasks:
            compare_readers(bench)
        if 'variants' in tasks:
            compare_variants(bench)
    if 'functions' in tasks and not compare_functions():
        sys.exit(1)


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('tasks', nargs='*', metavar='task',
        help=f'of {", ".join(TASKS)}, or gpu: those of --device cuda; default: as above')
    add('--backbone', default='resnet50', help='resnet50 | resnet101 | resnet152 | timm/NAME')
    add('--amp', choices=['auto', 'bf16', 'fp16', 'off'], default='auto', help='as in the stages')
    add('--batch_size', type=positive_int, help='images per step; default: 16, with CUDA 64')
    add('--num_workers', type=nonnegative_int, help="default: the stages' own")
    add('--compile', type=boolean, nargs='?', const=True, default=False,
        help='compile the network in the test scripts')
    add('--images', type=positive_int,
        help='number of extra images in the long list; default: 192, with CUDA 2048')
    add('--device', default='auto', help='auto | cpu | cuda')
    args = parser.parse_args()
    unknown = set(args.tasks) - {*TASKS, 'gpu'}
    if unknown:
        raise InputError(f'no task {", ".join(sorted(unknown))}: choose from {", ".join(TASKS)}')
    return args


if __name__ == '__main__':
    run(main)
