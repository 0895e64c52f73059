"""Stage 1 on CUB-200-2011: name the classes of the val images.

    python cub200-cls/test.py

Reads out/model-20, <datapath>/val.txt and <datapath>/image/; writes out/top1top5.npy, from which
cub200-seg/test.py makes Top-1 and Top-5 localization, and out/results.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import build_classifier, load_checkpoint
from utils.arguments import add_arch, add_snapshot, parse, stage_parser
from utils.data.cub import cub_images
from utils.errors import run
from utils.stages.classify import classify


def main():
    parser = stage_parser(__file__, __doc__, mode='test', data='CUB_200_2011', list='val.txt',
                          clsnum=200, batch_size=16, resize=685, crop=0)
    add_arch(parser)
    add_snapshot(parser, 'model-20')
    args = parse(parser)

    images, folder = cub_images(args)
    model = build_classifier(args.arch, args.clsnum, pretrained='none')
    load_checkpoint(model, args.snapshot)
    classify(args, model, images, folder)


if __name__ == '__main__':
    run(main)
