"""Stage 2 on CUB-200-2011: make pseudo masks of the training images.

    python cub200-cam/test.py               pseudo masks, for cub200-seg/train.py
    python cub200-cam/test.py --resume      the same, but for those that are there
    python cub200-cam/test.py --evaluate    how well the CAMs alone locate the val images

Reads out/model-32, <datapath>/train.txt and <datapath>/image/; writes <datapath>/mask/ and
out/results.json. With --evaluate it reads val.txt and image/ instead, looks at the centre crop as
seg/test does, and writes figures and tables to out/ alone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import CamNet, load_checkpoint
from utils.arguments import (
    add_backbone,
    add_evaluate,
    add_maskpath,
    add_resume,
    add_snapshot,
    parse,
    stage_parser,
)
from utils.data.cub import cub_images
from utils.errors import run
from utils.stages.evaluate import evaluate_cams
from utils.stages.make_masks import make_pseudo_masks


def main():
    parser = stage_parser(__file__, __doc__, mode='test', data='CUB_200_2011', list='train.txt',
                          clsnum=200, batch_size=64, resize=256, crop=0)
    add_backbone(parser)
    add_snapshot(parser, 'model-32')
    add_maskpath(parser)
    add_resume(parser, 'keep the pseudo masks that are there and whole')
    add_evaluate(parser)
    args = parse(parser)

    images, folder = cub_images(args)
    model = CamNet(args.clsnum, args.backbone, pretrained='none')
    load_checkpoint(model, args.snapshot)
    task = evaluate_cams if args.evaluate else make_pseudo_masks
    task(args, model, images, folder)


if __name__ == '__main__':
    run(main)
