"""Stage 1 in the ImageNet-1K layout: train a classifier on other data.

    python imagenet-cls/train.py --datapath DIR --clsnum N

The paper takes the pretrained EfficientNet-B7 as it is (imagenet-cls/test.py); this is for data
of your own in the same layout. Reads <datapath>/train.txt and <datapath>/train/; writes
out/model-N, out/last.ckpt, out/results.json and TensorBoard events.
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_arch, parse, select, training_parser
from utils.errors import run


def main():
    parser = training_parser(__file__, __doc__, data='ImageNet2012', clsnum=1000, batch_size=16,
                             resize=685, crop=600, lr=0.05, epoch=20)
    add_arch(parser)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    import albumentations as A
    import cv2

    from network import build_classifier
    from utils.data import imagenet
    from utils.data.datasets import TrainImages
    from utils.engine.device import init_distributed_device
    from utils.engine.trainer import Trainer, TrainingOptions, linear_decay
    from utils.localization.losses import classification_loss
    from utils.outputs.results import RunFolder
    from utils.stages.classify import parameter_groups

    device = init_distributed_device(args.device, args.seed, args.tf32)
    images = imagenet.read_train_images(args.datapath, args.list, args.clsnum)
    transform = A.Compose([
        A.Resize(args.resize, args.resize, interpolation=cv2.INTER_LINEAR),
        A.RandomCrop(args.crop or args.resize, args.crop or args.resize),
        A.HorizontalFlip(p=0.5),
    ])
    dataset = TrainImages(images, transform, args.seed)
    model = build_classifier(args.arch, args.clsnum, args.pretrained)

    def loss(model, batch):
        return classification_loss(model(batch['image']), batch['label'])

    Trainer(model, dataset, parameter_groups(model, args.lr), loss,
            select(args, TrainingOptions), device,
            RunFolder(args.savepath, vars(args), images.class_names),
            schedule=linear_decay,
            random_guess=math.log(args.clsnum)).run()


if __name__ == '__main__':
    run(main)
