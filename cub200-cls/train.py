"""Stage 1 on CUB-200-2011: train the classifier.

    python cub200-cls/train.py                      EfficientNet-B7, as the paper's best
    python cub200-cls/train.py --arch densenet161   the paper's other classifier
    torchrun --nproc_per_node=8 cub200-cls/train.py    on eight GPUs

Reads <datapath>/train.txt and <datapath>/image/; writes out/model-N, out/last.ckpt,
out/results.json and TensorBoard events. Then run cub200-cls/test.py.
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_arch, parse, select, training_parser
from utils.errors import run


def main():
    parser = training_parser(__file__, __doc__, data='CUB_200_2011', clsnum=200, batch_size=16,
                             resize=685, crop=600, lr=0.05, epoch=20)
    add_arch(parser)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    import albumentations as A
    import cv2

    from network import build_classifier
    from utils.data import cub
    from utils.data.datasets import TrainImages
    from utils.engine.device import init_distributed_device
    from utils.engine.trainer import Trainer, TrainingOptions, linear_decay
    from utils.localization.losses import classification_loss
    from utils.outputs.results import RunFolder
    from utils.stages.classify import parameter_groups

    device = init_distributed_device(args.device, args.seed, args.tf32)
    images = cub.read_images(args.datapath, args.list, args.clsnum)
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
