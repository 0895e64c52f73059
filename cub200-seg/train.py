"""Stage 3 on CUB-200-2011: train MFF-Net 2, class-agnostic segmentation, on the pseudo masks.

    python cub200-seg/train.py
    torchrun --nproc_per_node=8 cub200-seg/train.py    by eight processes

Reads <datapath>/train.txt, <datapath>/image/ and <datapath>/mask/ (of cub200-cam/test.py); writes
out/model-N, out/last.ckpt, out/results.json and TensorBoard events. Then run cub200-seg/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import SegNet
from utils.arguments import (
    add_backbone,
    add_maskpath,
    add_training,
    parse,
    stage_parser,
)
from utils.data.cub import cub_images
from utils.data.datasets import TrainingMasks
from utils.engine.trainer import Trainer, every_epoch
from utils.errors import run
from utils.localization.losses import segmentation_loss


def main():
    parser = stage_parser(__file__, __doc__, mode='train', data='CUB_200_2011', list='train.txt',
                          clsnum=200, batch_size=128, resize=256, crop=224)
    add_backbone(parser)
    add_maskpath(parser)
    add_training(parser, lr=0.02, epoch=8)
    args = parse(parser)

    images, folder = cub_images(args)
    dataset = TrainingMasks(images, folder, args.resize, args.crop, args.seed,
                            args.maskpath)
    model = SegNet(args.backbone, args.pretrained)
    Trainer(args, model, dataset, [{'params': model.parameters()}], loss, keep=every_epoch).run()


def loss(model, batch):
    return segmentation_loss(model(batch['image']), batch['foreground'], batch['weight'])


if __name__ == '__main__':
    run(main)
