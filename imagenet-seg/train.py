"""Stage 3 on ImageNet-1K: train MFF-Net 2, class-agnostic segmentation, on the pseudo masks.

    python imagenet-seg/train.py
    torchrun --nproc_per_node=8 imagenet-seg/train.py    by eight processes

Reads <datapath>/train.txt, <datapath>/train/ and <datapath>/mask/ (of imagenet-cam/test.py);
writes out/model-STEP every 2,000 steps and at the end, out/last.ckpt, out/results.json and
TensorBoard events. Then run imagenet-seg/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import SegNet
from utils.arguments import add_backbone, add_maskpath, add_training, parse, stage_parser
from utils.data.datasets import TrainingMasks
from utils.data.imagenet import train_images
from utils.engine.trainer import Trainer
from utils.errors import run
from utils.localization.losses import segmentation_loss


def main():
    parser = stage_parser(__file__, __doc__, mode='train', data='ImageNet2012', list='train.txt',
                          clsnum=1000, batch_size=128, resize=256, crop=224)
    add_backbone(parser)
    add_maskpath(parser)
    add_training(parser, lr=0.02, epoch=1)
    args = parse(parser)

    dataset = TrainingMasks(*train_images(args), args.resize, args.crop, args.seed, args.maskpath)
    model = SegNet(args.backbone, args.pretrained)
    groups = [{'params': model.parameters()}]
    Trainer(args, model, dataset, groups, loss, save_steps=2000).run()


def loss(model, batch):
    return segmentation_loss(model(batch['image']), batch['foreground'], batch['weight'])


if __name__ == '__main__':
    run(main)
