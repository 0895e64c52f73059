"""Stage 1 on CUB-200-2011: train the classifier.

    python cub200-cls/train.py                      EfficientNet-B7, as the paper's best
    python cub200-cls/train.py --arch densenet161   the paper's other classifier
    torchrun --nproc_per_node=8 cub200-cls/train.py    on eight GPUs

Reads <datapath>/train.txt and <datapath>/image/; writes out/model-N, out/last.ckpt,
out/results.json and TensorBoard events. Then run cub200-cls/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_arch, parse, training_parser
from utils.errors import run


def main():
    parser = training_parser(__file__, __doc__, data='CUB_200_2011', clsnum=200, batch_size=16,
                             resize=685, crop=600, lr=0.05, epoch=20)
    add_arch(parser)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network.classifier import build_classifier, parameter_groups
    from utils.datasets import TrainImages, train_transform
    from utils.device import init_device
    from utils.lists import cub_images
    from utils.losses import classification_loss
    from utils.results import RunFolder
    from utils.training import linear_decay, train

    device = init_device(args.device, args.seed, args.tf32)
    images = cub_images(args.datapath, args.list, args.clsnum)
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
