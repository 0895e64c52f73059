"""Stage 1 on CUB-200-2011: classify the val images.

    python cub200-cls/test.py

Reads out/model-20, <datapath>/val.txt and <datapath>/image/; writes out/top1top5.npy, from which
cub200-seg/test.py makes Top-1 and Top-5 localization, and out/results.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_arch, inference_parser, parse
from utils.errors import run


def main():
    parser = inference_parser(__file__, __doc__, data='CUB_200_2011', list='val.txt', clsnum=200,
                              batch_size=16, resize=685, crop=0, snapshot='model-20')
    add_arch(parser)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import build_classifier, load_checkpoint
    from utils.boxes import CentreCrop
    from utils.classification import evaluate_classifier
    from utils.device import init_device
    from utils.inference import Predictor
    from utils.lists import cub_images
    from utils.results import RunFolder

    device = init_device(args.device, args.seed, test=True)
    images = cub_images(args.datapath, args.list, args.clsnum)
    model = build_classifier(args.arch, args.clsnum, pretrained='none')
    load_checkpoint(model, args.snapshot)
    evaluate_classifier(Predictor(model, device, args.amp), images,
                        CentreCrop(args.resize, args.crop), args,
                        RunFolder(args.savepath, vars(args)))


if __name__ == '__main__':
    run(main)
