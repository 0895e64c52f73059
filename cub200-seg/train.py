"""Stage 3 on CUB-200-2011: train MFF-Net 2, class-agnostic segmentation, on the pseudo masks.

    python cub200-seg/train.py
    torchrun --nproc_per_node=8 cub200-seg/train.py    on eight GPUs

Reads <datapath>/train.txt, <datapath>/image/ and <datapath>/mask/ (of cub200-cam/test.py); writes
out/model-N, out/last.ckpt, out/results.json and TensorBoard events. Then run cub200-seg/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_backbone, add_maskpath, parse, training_parser
from utils.errors import run


def main():
    parser = training_parser(__file__, __doc__, data='CUB_200_2011', clsnum=200, batch_size=128,
                             resize=256, crop=224, lr=0.02, epoch=8)
    add_backbone(parser)
    add_maskpath(parser)
    parser.set_defaults(threshold=0.2)  # recorded: seg/test and predictions use it
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import SegNet
    from utils.datasets import TrainMasks, check_masks, train_transform
    from utils.device import init_device
    from utils.lists import cub_images
    from utils.losses import segmentation_loss
    from utils.results import RunFolder
    from utils.training import every_epoch, train

    device = init_device(args.device, args.seed, args.tf32)
    images = cub_images(args.datapath, args.list, args.clsnum)
    check_masks(args.maskpath, images)
    transform = train_transform(args.resize, args.crop)
    model = SegNet(args.backbone, pretrained=args.pretrained)

    def loss(model, batch):
        return segmentation_loss(model(batch['image']), batch['foreground'], batch['valid'])

    train(model, TrainMasks(images, transform, args.seed, args.maskpath),
          [{'params': model.parameters()}], loss, args, device,
          RunFolder(args.savepath, vars(args), images.class_names),
          paper_steps=376, should_save=every_epoch)


if __name__ == '__main__':
    run(main)
