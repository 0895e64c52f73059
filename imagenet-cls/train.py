"""Stage 1 in the ImageNet-1K layout: train a classifier on other data.

    python imagenet-cls/train.py --datapath DIR --clsnum N

The paper takes the pretrained EfficientNet-B7 as it is (imagenet-cls/test.py); this is for data
of your own in the same layout. Reads <datapath>/train.txt and <datapath>/train/; writes
out/model-N, out/last.ckpt, out/results.json and TensorBoard events.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_arch, parse, training_parser
from utils.errors import run


def main():
    parser = training_parser(__file__, __doc__, data='ImageNet2012', clsnum=1000, batch_size=16,
                             resize=685, crop=600, lr=0.05, epoch=20)
    add_arch(parser)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network.classifier import build_classifier, parameter_groups
    from utils.datasets import TrainImages, train_transform
    from utils.device import init_device
    from utils.imagenet import imagenet_images
    from utils.losses import classification_loss
    from utils.results import RunFolder
    from utils.training import linear_decay, train

    device = init_device(args.device, args.seed, args.tf32)
    images = imagenet_images(args.datapath, args.list, args.clsnum)
    transform = train_transform(args.resize, args.crop)
    model = build_classifier(args.arch, args.clsnum, args.pretrained)

    def loss(model, batch):
        return classification_loss(model(batch['image']), batch['label'])

    train(model, TrainImages(images, transform, args.seed),
          parameter_groups(model, args.lr), loss, args, device,
          RunFolder(args.savepath, vars(args), images.class_names),
          schedule=linear_decay)


if __name__ == '__main__':
    run(main)
