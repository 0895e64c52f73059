"""Stage 3 on CUB-200-2011: predict bounding boxes for the val images.

    python cub200-seg/test.py                     Top-1, Top-5 and GT-known localization
    python cub200-seg/test.py --sweep             at all thresholds
    python cub200-seg/test.py --top1top5 none     GT-known alone, without a classifier
    python cub200-seg/test.py --select LIST       also at the best threshold of other images

Reads out/model-8 (or --snapshot: ours or the authors'), cub200-cls/out/top1top5.npy,
<datapath>/val.txt and <datapath>/image/; writes out/boxes.csv, out/classes.csv and
out/results.json, and with --sweep out/sweep.csv and out/sweep.png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import (
    add_backbone,
    add_evaluation,
    add_select,
    add_snapshot,
    add_top1top5,
    inference_parser,
    parse,
    select,
)
from utils.errors import run


def main():
    parser = inference_parser(__file__, __doc__, data='CUB_200_2011', list='val.txt', clsnum=200,
                              batch_size=128, resize=256, crop=224)
    add_backbone(parser)
    add_snapshot(parser, 'model-8')
    add_evaluation(parser, threshold=0.2)
    add_top1top5(parser, 'cub200-cls')
    add_select(parser)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import SegNet, load_checkpoint
    from utils.data import cub
    from utils.engine.device import init_distributed_device
    from utils.engine.inference import Inference, InferenceOptions
    from utils.localization.boxes import CentreCrop
    from utils.outputs.results import RunFolder
    from utils.outputs.top1top5 import read_top1top5
    from utils.stages.evaluate import EvaluationOptions, evaluate_segmentation
    from utils.stages.show import write_seg_sheet

    device = init_distributed_device(args.device, args.seed, test=True)
    images = cub.read_images(args.datapath, args.list, args.clsnum)
    selection = cub.read_images(args.datapath, args.select, args.clsnum) if args.select else None
    hits = read_top1top5(args.top1top5, images.names) if args.top1top5 else None
    model = SegNet(args.backbone, pretrained='none')
    load_checkpoint(model, args.snapshot)
    inference = Inference(device, select(args, InferenceOptions))
    output = RunFolder(args.savepath, vars(args))
    crop, predict = CentreCrop(args.resize, args.crop), inference.predictor(model)
    evaluate_segmentation(predict, images, crop, inference, output,
                          select(args, EvaluationOptions), hits, selection)
    write_seg_sheet(output.file('show.png'), predict, images, crop, args.show, args.threshold)


if __name__ == '__main__':
    run(main)
