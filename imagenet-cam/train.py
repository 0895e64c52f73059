"""Stage 2 on ImageNet-1K: train MFF-Net 1, whose CAMs become pseudo masks.

    python imagenet-cam/train.py
    torchrun --nproc_per_node=8 imagenet-cam/train.py    on eight GPUs

Unlike on CUB there is no deep branch, and the backbone's stem stays as it is. Reads
<datapath>/train.txt and <datapath>/train/; writes out/model-STEP every 2,000 steps and at the
end, out/last.ckpt, out/results.json and TensorBoard events. Then run imagenet-cam/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_backbone, add_fusion, parse, training_parser
from utils.errors import run


def main():
    parser = training_parser(__file__, __doc__, data='ImageNet2012', clsnum=1000, batch_size=128,
                             resize=256, crop=224, lr=0.02, epoch=1)
    add_backbone(parser)
    add_fusion(parser)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import CamNet
    from utils.datasets import TrainImages, train_transform
    from utils.device import init_device
    from utils.imagenet import imagenet_images
    from utils.losses import classification_loss
    from utils.results import RunFolder
    from utils.training import train

    device = init_device(args.device, args.seed, args.tf32)
    images = imagenet_images(args.datapath, args.list, args.clsnum)
    transform = train_transform(args.resize, args.crop)
    model = CamNet(args.clsnum, args.backbone, auxiliary=False, pretrained=args.pretrained,
                   stages=args.stages, fusion=args.fusion, attention=not args.no_attention)
    for parameter in model.backbone.stem_parameters():
        parameter.requires_grad_(False)
    trained = [p for p in model.backbone.parameters() if p.requires_grad]
    groups = [{'params': model.new_parameters()}, {'params': trained, 'lr': args.lr / 10}]

    def loss(model, batch):
        return classification_loss(model(batch['image']), batch['label'])

    train(model, TrainImages(images, transform, args.seed), groups, loss, args, device,
          RunFolder(args.savepath, vars(args), images.class_names),
          paper_steps=10_010, save_model_every=2000)


if __name__ == '__main__':
    run(main)
