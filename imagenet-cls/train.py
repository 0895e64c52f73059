"""Stage 1 in the ImageNet-1K layout: train a classifier on other data.

    python imagenet-cls/train.py --datapath DIR --clsnum N

The paper takes the pretrained EfficientNet-B7 as it is (imagenet-cls/test.py); this is for data
of your own in the same layout. Reads <datapath>/train.txt and <datapath>/train/; writes
out/model-N, out/last.ckpt, out/results.json and TensorBoard events.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_arch, add_training, parse, stage_parser
from utils.data.imagenet import train_images
from utils.errors import run
from utils.stages.classify import train_classifier


def main():
    parser = stage_parser(__file__, __doc__, mode='train', data='ImageNet2012', list='train.txt',
                          clsnum=1000, batch_size=16, resize=685, crop=600)
    add_arch(parser)
    add_training(parser, lr=0.05, epoch=20)
    args = parse(parser)

    train_classifier(args, *train_images(args))


if __name__ == '__main__':
    run(main)
