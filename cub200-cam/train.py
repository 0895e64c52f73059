"""Stage 2 on CUB-200-2011: train MFF-Net 1, whose CAMs become pseudo masks.

    python cub200-cam/train.py
    torchrun --nproc_per_node=8 cub200-cam/train.py    on eight GPUs

Reads <datapath>/train.txt and <datapath>/image/; writes out/model-N, out/last.ckpt,
out/results.json and TensorBoard events. Then run cub200-cam/test.py.
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_backbone, add_show, parse, select, training_parser
from utils.errors import run


def main():
    parser = training_parser(__file__, __doc__, data='CUB_200_2011', clsnum=200, batch_size=64,
                             resize=256, crop=224, lr=0.02, epoch=32)
    add_backbone(parser)
    add_show(parser, 'training.png, after each epoch')
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    import albumentations as A
    import cv2

    from network import CamNet
    from utils.data import cub
    from utils.data.datasets import TrainImages
    from utils.engine.device import init_distributed_device
    from utils.engine.trainer import Trainer, TrainingOptions
    from utils.localization.boxes import CentreCrop
    from utils.localization.losses import distillation_loss
    from utils.outputs.results import RunFolder
    from utils.stages.show import cam_drawer

    device = init_distributed_device(args.device, args.seed, args.tf32)
    images = cub.read_images(args.datapath, args.list, args.clsnum)
    transform = A.Compose([
        A.Resize(args.resize, args.resize, interpolation=cv2.INTER_LINEAR),
        A.RandomCrop(args.crop or args.resize, args.crop or args.resize),
        A.HorizontalFlip(p=0.5),
    ])
    dataset = TrainImages(images, transform, args.seed)
    model = CamNet(args.clsnum, args.backbone, pretrained=args.pretrained)
    groups = [{'params': model.new_parameters()},
              {'params': model.pretrained_parameters(), 'lr': args.lr / 10}]

    def loss(model, batch):
        deep, fused = model(batch['image'])
        return distillation_loss(deep, fused, batch['label'])

    Trainer(model, dataset, groups, loss, select(args, TrainingOptions), device,
            RunFolder(args.savepath, vars(args), images.class_names),
            draw=cam_drawer(images, CentreCrop(args.resize, args.crop), args.show),
            random_guess=math.log(args.clsnum), paper_steps=3008).run()


if __name__ == '__main__':
    run(main)
