"""Stage 2 on CUB-200-2011: train MFF-Net 1, whose CAMs become pseudo masks.

    python cub200-cam/train.py
    torchrun --nproc_per_node=8 cub200-cam/train.py    by eight processes

Reads <datapath>/train.txt and <datapath>/image/; writes out/model-N, out/last.ckpt,
out/results.json and TensorBoard events. Then run cub200-cam/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import CamNet
from utils.arguments import add_backbone, add_training, parse, stage_parser
from utils.data.cub import cub_images
from utils.data.datasets import TrainingImages
from utils.engine.trainer import Trainer
from utils.errors import run
from utils.localization.losses import distillation_loss


def main():
    parser = stage_parser(__file__, __doc__, mode='train', data='CUB_200_2011', list='train.txt',
                          clsnum=200, batch_size=64, resize=256, crop=224)
    add_backbone(parser)
    add_training(parser, lr=0.02, epoch=32)
    args = parse(parser)

    images, folder = cub_images(args)
    dataset = TrainingImages(images, folder, args.resize, args.crop, args.seed)
    model = CamNet(args.clsnum, args.backbone, auxiliary=True, pretrained=args.pretrained)
    groups = [{'params': model.new_parameters()},
              {'params': model.backbone.parameters(), 'lr': args.lr / 10}]
    Trainer(args, model, dataset, groups, loss).run()


def loss(model, batch):
    deep, fused = model(batch['image'])
    return distillation_loss(deep, fused, batch['label'])


if __name__ == '__main__':
    run(main)
