"""Stage 1 on CUB-200-2011: train the classifier.

    python cub200-cls/train.py                      EfficientNet-B7, as the paper's best
    python cub200-cls/train.py --arch densenet161   the paper's other classifier

Reads <datapath>/train.txt and <datapath>/image/; writes out/model-N, out/last.ckpt,
out/results.json and TensorBoard events. Then run cub200-cls/test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import build_classifier
from network.classifier import head_parameters
from utils.arguments import add_arch, add_training, list_path, parse, stage_parser
from utils.datasets import TrainingImages
from utils.errors import run
from utils.lists import read_cub_list
from utils.losses import classification_loss
from utils.training import Trainer, linear_decay


def main():
    parser = stage_parser(__file__, __doc__, mode='train', data='CUB_200_2011', list='train.txt',
                          clsnum=200, batch_size=16, resize=685, crop=600)
    add_arch(parser)
    add_training(parser, lr=0.05, epoch=20)
    args = parse(parser)

    images = read_cub_list(list_path(args), args.clsnum)
    dataset = TrainingImages(images, args.datapath / 'image', args.resize, args.crop, args.seed)
    model = build_classifier(args.arch, args.clsnum, args.pretrained)
    head = head_parameters(model)
    groups = [{'params': head},
              {'params': [p for p in model.parameters() if all(p is not h for h in head)],
               'lr': args.lr / 10}]
    Trainer(args, model, dataset, groups, loss, schedule=linear_decay).run()


def loss(model, batch):
    return classification_loss(model(batch['image']), batch['label'])


if __name__ == '__main__':
    run(main)
