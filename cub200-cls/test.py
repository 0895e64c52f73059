"""Stage 1 on CUB-200-2011: classify the val images.

    python cub200-cls/test.py

Reads out/model-20, <datapath>/val.txt and <datapath>/image/; writes out/top1top5.npy, from which
cub200-seg/test.py makes Top-1 and Top-5 localization, and out/results.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_arch, add_snapshot, inference_parser, parse, select
from utils.errors import run


def main():
    parser = inference_parser(__file__, __doc__, data='CUB_200_2011', list='val.txt', clsnum=200,
                              batch_size=16, resize=685, crop=0)
    add_arch(parser)
    add_snapshot(parser, 'model-20')
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import build_classifier, load_checkpoint
    from utils.data import cub
    from utils.engine.device import init_distributed_device
    from utils.engine.inference import Inference, InferenceOptions
    from utils.localization.boxes import CentreCrop
    from utils.outputs.results import RunFolder
    from utils.stages.classify import evaluate_classifier

    device = init_distributed_device(args.device, args.seed, test=True)
    images = cub.read_images(args.datapath, args.list, args.clsnum)
    model = build_classifier(args.arch, args.clsnum, pretrained='none')
    load_checkpoint(model, args.snapshot)
    evaluate_classifier(model, images, CentreCrop(args.resize, args.crop),
             Inference(device, select(args, InferenceOptions)),
             RunFolder(args.savepath, vars(args)))


if __name__ == '__main__':
    run(main)
