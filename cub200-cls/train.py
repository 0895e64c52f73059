"""Stage 1 on CUB-200-2011: train the classifier.

    python cub200-cls/train.py                      EfficientNet-B7, as the paper's best
    python cub200-cls/train.py --arch densenet161   the paper's other classifier
    torchrun --nproc_per_node=8 cub200-cls/train.py    by eight processes

Reads <datapath>/train.txt and <datapath>/image/; writes out/model-N, out/last.ckpt,
out/results.json and TensorBoard events. Then run cub200-cls/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_arch, add_training, parse, stage_parser
from utils.data.cub import cub_images
from utils.errors import run
from utils.stages.classify import train_classifier


def main():
    parser = stage_parser(__file__, __doc__, mode='train', data='CUB_200_2011', list='train.txt',
                          clsnum=200, batch_size=16, resize=685, crop=600)
    add_arch(parser)
    add_training(parser, lr=0.05, epoch=20)
    args = parse(parser)

    images, folder = cub_images(args)
    train_classifier(args, images, folder)


if __name__ == '__main__':
    run(main)
