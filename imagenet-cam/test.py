"""Stage 2 on ImageNet-1K: make pseudo masks of the training images.

    python imagenet-cam/test.py               pseudo masks, for imagenet-seg/train.py
    python imagenet-cam/test.py --resume      the same, but for those that are there
    python imagenet-cam/test.py --evaluate    how well the CAMs alone locate the val images

Reads out/model-6000, <datapath>/train.txt and <datapath>/train/; writes <datapath>/mask/ and
out/results.json. With --evaluate it reads val.txt and val/ instead, looks at the centre crop as
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
from utils.data.imagenet import boxed_val_images, train_images
from utils.errors import run
from utils.stages.evaluate import evaluate_cams
from utils.stages.make_masks import make_pseudo_masks


def main():
    parser = stage_parser(__file__, __doc__, mode='test', data='ImageNet2012', list='train.txt',
                          clsnum=1000, batch_size=128, resize=256, crop=0)
    add_backbone(parser)
    add_snapshot(parser, 'model-6000')
    add_maskpath(parser)
    add_resume(parser, 'keep the pseudo masks that are there and whole')
    add_evaluate(parser)
    args = parse(parser)

    model = CamNet(args.clsnum, args.backbone, auxiliary=False, pretrained='none')
    load_checkpoint(model, args.snapshot)
    if args.evaluate:
        evaluate_cams(args, model, *boxed_val_images(args))
    else:
        make_pseudo_masks(args, model, *train_images(args))


if __name__ == '__main__':
    run(main)
