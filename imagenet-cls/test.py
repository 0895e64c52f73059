"""Stage 1 on ImageNet-1K: classify the val images.

    python imagenet-cls/test.py                                         the pretrained network
    python imagenet-cls/test.py --snapshot imagenet-cls/out/model-20    one of imagenet-cls/train.py

Reads the ImageNet weights (or --snapshot), <datapath>/val.txt and <datapath>/val/; writes
out/top1top5.npy, from which imagenet-seg/test.py makes Top-1 and Top-5 localization, and
out/results.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_arch, add_pretrained, inference_parser, parse
from utils.errors import run


def main():
    parser = inference_parser(__file__, __doc__, data='ImageNet2012', list='val.txt', clsnum=1000,
                              batch_size=16, resize=685, crop=0, snapshot=None)
    add_arch(parser)
    add_pretrained(parser)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import build_classifier, load_checkpoint
    from utils.boxes import CentreCrop
    from utils.classification import evaluate_classifier
    from utils.device import init_device
    from utils.imagenet import imagenet_images
    from utils.inference import Predictor
    from utils.results import RunFolder

    device = init_device(args.device, args.seed, test=True)
    images = imagenet_images(args.datapath, args.list, args.clsnum, 'val')
    model = build_classifier(args.arch, args.clsnum, 'none' if args.snapshot else args.pretrained,
                             keep_head=not args.snapshot)
    if args.snapshot:
        load_checkpoint(model, args.snapshot)
    evaluate_classifier(Predictor(model, device, args.amp), images,
                        CentreCrop(args.resize, args.crop), args,
                        RunFolder(args.savepath, vars(args)))


if __name__ == '__main__':
    run(main)
