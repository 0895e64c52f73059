"""Stage 3 on ImageNet-1K: box the objects of the val images, the result of SPOL.

    python imagenet-seg/test.py                     Top-1, Top-5 and GT-known localization
    python imagenet-seg/test.py --sweep             at all thresholds
    python imagenet-seg/test.py --top1top5 none     GT-known alone, without a classifier

Reads out/model-6000 (or --snapshot: ours or the authors'), imagenet-cls/out/top1top5.npy,
<datapath>/val.txt, <datapath>/val/ and <datapath>/box/; writes out/boxes.csv, out/classes.csv and
out/results.json, and with --sweep out/sweep.csv and out/sweep.png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import SegNet, load_checkpoint
from utils.arguments import (
    add_backbone,
    add_evaluation,
    add_snapshot,
    add_top1top5,
    parse,
    stage_parser,
)
from utils.data.imagenet import boxed_val_images
from utils.errors import run
from utils.outputs.top1top5 import read_top1top5
from utils.stages.evaluate import evaluate_segmentation


def main():
    parser = stage_parser(__file__, __doc__, mode='test', data='ImageNet2012', list='val.txt',
                          clsnum=1000, batch_size=128, resize=256, crop=224)
    add_backbone(parser)
    add_snapshot(parser, 'model-6000')
    add_evaluation(parser, threshold=0.8)
    add_top1top5(parser, 'imagenet-cls')
    args = parse(parser)

    images, folder = boxed_val_images(args)
    hits = read_top1top5(args.top1top5) if args.top1top5 else None
    model = SegNet(args.backbone, pretrained='none')
    load_checkpoint(model, args.snapshot)
    evaluate_segmentation(args, model, images, folder, hits)


if __name__ == '__main__':
    run(main)
