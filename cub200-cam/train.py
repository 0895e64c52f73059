"""Stage 2 on CUB-200-2011: train MFF-Net 1, whose CAMs become pseudo masks.

    python cub200-cam/train.py
    python cub200-cam/train.py --stages 45 --fusion add     a variant of Figure 1(b)
    torchrun --nproc_per_node=8 cub200-cam/train.py         on eight GPUs

Reads <datapath>/train.txt and <datapath>/image/; writes out/model-N, out/last.ckpt,
out/results.json and TensorBoard events. Then run cub200-cam/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_backbone, add_fusion, parse, training_parser
from utils.errors import run


def main():
    parser = training_parser(__file__, __doc__, data='CUB_200_2011', clsnum=200, batch_size=64,
                             resize=256, crop=224, lr=0.02, epoch=32)
    add_backbone(parser)
    add_fusion(parser)
    parser.add_argument('--no_distillation', action='store_true',
                        help='without the deep branch: cross-entropy of the fused one alone')
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import CamNet
    from utils.datasets import TrainImages, train_transform
    from utils.device import init_device
    from utils.lists import cub_images
    from utils.losses import classification_loss, distillation_loss
    from utils.results import RunFolder
    from utils.training import train

    device = init_device(args.device, args.seed, args.tf32)
    images = cub_images(args.datapath, args.list, args.clsnum)
    transform = train_transform(args.resize, args.crop)
    model = CamNet(args.clsnum, args.backbone, auxiliary=not args.no_distillation,
                   pretrained=args.pretrained, stages=args.stages, fusion=args.fusion,
                   attention=not args.no_attention)
    groups = [{'params': model.new_parameters()},
              {'params': model.backbone.parameters(), 'lr': args.lr / 10}]

    def loss(model, batch):
        if args.no_distillation:
            return classification_loss(model(batch['image']), batch['label'])
        deep, fused = model(batch['image'])
        return distillation_loss(deep, fused, batch['label'])

    train(model, TrainImages(images, transform, args.seed), groups, loss, args, device,
          RunFolder(args.savepath, vars(args), images.class_names), paper_steps=3008)


if __name__ == '__main__':
    run(main)
