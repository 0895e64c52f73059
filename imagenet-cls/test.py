"""Stage 1 on ImageNet-1K: name the classes of the val images.

    python imagenet-cls/test.py                            the pretrained EfficientNet-B7
    python imagenet-cls/test.py --snapshot out/model-20    a classifier of imagenet-cls/train.py

Reads the ImageNet weights (or --snapshot), <datapath>/val.txt and <datapath>/val/; writes
out/top1top5.npy, from which imagenet-seg/test.py makes Top-1 and Top-5 localization, and
out/results.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from network import build_classifier, load_checkpoint
from utils.arguments import add_arch, add_pretrained, parse, stage_parser
from utils.data.imagenet import val_images
from utils.errors import run
from utils.stages.classify import classify


def main():
    parser = stage_parser(__file__, __doc__, mode='test', data='ImageNet2012', list='val.txt',
                          clsnum=1000, batch_size=16, resize=685, crop=0)
    add_arch(parser)
    add_pretrained(parser)
    parser.add_argument('--snapshot', type=Path,
                        help='a trained classifier (default: the pretrained one as it is)')
    args = parse(parser)

    images, folder = val_images(args)
    if args.snapshot:
        model = build_classifier(args.arch, args.clsnum, pretrained='none')
        load_checkpoint(model, args.snapshot)
    else:
        model = build_classifier(args.arch, args.clsnum, args.pretrained, keep_head=True)
    classify(args, model, images, folder)


if __name__ == '__main__':
    run(main)
