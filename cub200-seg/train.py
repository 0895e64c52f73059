"""Stage 3 on CUB-200-2011: train MFF-Net 2, class-agnostic segmentation, on the pseudo masks.

    python cub200-seg/train.py
    torchrun --nproc_per_node=8 cub200-seg/train.py    on eight GPUs

Reads <datapath>/train.txt, <datapath>/image/ and <datapath>/mask/ (of cub200-cam/test.py); writes
out/model-N, out/last.ckpt, out/results.json and TensorBoard events. Then run cub200-seg/test.py.
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import (
    add_backbone,
    add_maskpath,
    add_show,
    parse,
    select,
    training_parser,
)
from utils.errors import run


def main():
    parser = training_parser(__file__, __doc__, data='CUB_200_2011', clsnum=200, batch_size=128,
                             resize=256, crop=224, lr=0.02, epoch=8)
    add_backbone(parser)
    add_maskpath(parser)
    add_show(parser, 'training.png, after each epoch')
    parser.set_defaults(threshold=0.2)  # recorded: seg/test and predictions use it
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    import albumentations as A
    import cv2

    from network import SegNet
    from utils.data import cub
    from utils.data.datasets import TrainMasks
    from utils.engine.device import init_distributed_device
    from utils.engine.trainer import Trainer, TrainingOptions, every_epoch
    from utils.localization.boxes import CentreCrop
    from utils.localization.losses import segmentation_loss
    from utils.outputs.results import RunFolder
    from utils.stages.mask_record import describe_masks
    from utils.stages.show import seg_drawer

    device = init_distributed_device(args.device, args.seed, args.tf32)
    images = cub.read_images(args.datapath, args.list, args.clsnum)
    describe_masks(args.maskpath, images, args.clsnum)
    transform = A.Compose([
        A.Resize(args.resize, args.resize, interpolation=cv2.INTER_LINEAR),
        A.RandomCrop(args.crop or args.resize, args.crop or args.resize),
        A.HorizontalFlip(p=0.5),
    ])
    dataset = TrainMasks(images, transform, args.seed, args.maskpath)
    model = SegNet(args.backbone, pretrained=args.pretrained)

    def loss(model, batch):
        return segmentation_loss(model(batch['image']), batch['foreground'], batch['valid'])

    Trainer(model, dataset, [{'params': model.parameters()}], loss,
            select(args, TrainingOptions), device,
            RunFolder(args.savepath, vars(args), images.class_names),
            should_save=every_epoch,
            draw=seg_drawer(images, CentreCrop(args.resize, args.crop), args.maskpath,
                            args.show, args.threshold),
            random_guess=math.log(2), paper_steps=376).run()


if __name__ == '__main__':
    run(main)
