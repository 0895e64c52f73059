"""Stage 2 on ImageNet-1K: train MFF-Net 1, whose CAMs become pseudo masks.

    python imagenet-cam/train.py
    torchrun --nproc_per_node=8 imagenet-cam/train.py    by eight processes

Unlike on CUB there is no deep branch, and the backbone's stem stays as it is. Reads
<datapath>/train.txt and <datapath>/train/; writes out/model-STEP every 2,000 steps and at the
end, out/last.ckpt, out/results.json and TensorBoard events. Then run imagenet-cam/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import CamNet
from utils.arguments import add_backbone, add_training, parse, stage_parser
from utils.data.datasets import TrainingImages
from utils.data.imagenet import train_images
from utils.engine.trainer import Trainer
from utils.errors import run
from utils.localization.losses import classification_loss


def main():
    parser = stage_parser(__file__, __doc__, mode='train', data='ImageNet2012', list='train.txt',
                          clsnum=1000, batch_size=128, resize=256, crop=224)
    add_backbone(parser)
    add_training(parser, lr=0.02, epoch=1)
    args = parse(parser)

    dataset = TrainingImages(*train_images(args), args.resize, args.crop, args.seed)
    model = CamNet(args.clsnum, args.backbone, auxiliary=False, pretrained=args.pretrained)
    for parameter in model.backbone.stem_parameters():
        parameter.requires_grad_(False)
    unfrozen = [p for p in model.backbone.parameters() if p.requires_grad]
    groups = [{'params': model.new_parameters()}, {'params': unfrozen, 'lr': args.lr / 10}]
    Trainer(args, model, dataset, groups, loss, save_steps=2000).run()


def loss(model, batch):
    return classification_loss(model(batch['image']), batch['label'])


if __name__ == '__main__':
    run(main)
