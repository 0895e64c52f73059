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

from utils.arguments import add_arch, add_pretrained, inference_parser, parse, select
from utils.errors import run


def main():
    parser = inference_parser(__file__, __doc__, data='ImageNet2012', list='val.txt', clsnum=1000,
                              batch_size=16, resize=685, crop=0)
    add_arch(parser)
    add_pretrained(parser)
    parser.add_argument('--snapshot', type=Path,
                        help='a trained classifier (default: the pretrained one as it is)')
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import build_classifier, load_checkpoint
    from utils.data import imagenet
    from utils.engine.device import init_distributed_device
    from utils.engine.inference import Inference, InferenceOptions
    from utils.localization.boxes import CentreCrop
    from utils.outputs.results import RunFolder
    from utils.stages.classify import evaluate_classifier

    device = init_distributed_device(args.device, args.seed, test=True)
    images = imagenet.read_val_images(args.datapath, args.list, args.clsnum)
    if args.snapshot:
        model = build_classifier(args.arch, args.clsnum, pretrained='none')
        load_checkpoint(model, args.snapshot)
    else:
        model = build_classifier(args.arch, args.clsnum, args.pretrained, keep_head=True)
    evaluate_classifier(model, images, CentreCrop(args.resize, args.crop),
             Inference(device, select(args, InferenceOptions)),
             RunFolder(args.savepath, vars(args)))


if __name__ == '__main__':
    run(main)
