"""Stage 2 on ImageNet-1K: make pseudo masks of the training images.

    python imagenet-cam/test.py               pseudo masks, for imagenet-seg/train.py
    python imagenet-cam/test.py --resume      continue: keep existing pseudo masks
    python imagenet-cam/test.py --evaluate    how well the CAMs alone locate the val images

Reads out/model-6000, <datapath>/train.txt and <datapath>/train/; writes <datapath>/mask/ and
out/results.json. mask/masks.json says what has made the masks: those of another run are overwritten
with --overwrite alone. With --evaluate it reads val.txt and val/ instead, evaluates the centre crop
as imagenet-seg/test.py does, and writes results.json, fused-boxes.csv, fused-classes.csv and
show.png to out/; no pseudo mask is written.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import (
    add_backbone,
    add_cam_test,
    add_snapshot,
    inference_parser,
    parse,
    select,
)
from utils.errors import run


def main():
    parser = inference_parser(__file__, __doc__, data='ImageNet2012', list=None, clsnum=1000,
                              batch_size=128, resize=256, crop=None)
    add_backbone(parser)
    add_snapshot(parser, 'model-6000')
    add_cam_test(parser, threshold=0.2)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import CamNet, load_checkpoint
    from utils.data import imagenet
    from utils.engine.device import init_distributed_device
    from utils.engine.inference import Inference, InferenceOptions
    from utils.localization.boxes import CentreCrop
    from utils.outputs.results import RunFolder
    from utils.stages.evaluate import EvaluationOptions, evaluate_cams
    from utils.stages.make_masks import make_pseudo_masks
    from utils.stages.mask_record import claim_masks
    from utils.stages.show import write_cam_sheet

    device = init_distributed_device(args.device, args.seed, test=True)
    inference = Inference(device, select(args, InferenceOptions))
    output = RunFolder(args.savepath, vars(args))
    model = CamNet(args.clsnum, args.backbone, auxiliary=False, pretrained='none')
    load_checkpoint(model, args.snapshot)
    if args.evaluate:
        images = imagenet.read_val_images(args.datapath, args.list, args.clsnum, boxes=True)
        crop, predict = CentreCrop(args.resize, args.crop), inference.predictor(model, 'class_cams')
        evaluate_cams(predict, ('fused',), images, crop, inference, output,
                      select(args, EvaluationOptions))
        write_cam_sheet(output.file('show.png'), predict, images, crop, args.show, args.threshold)
    else:
        images = imagenet.read_train_images(args.datapath, args.list, args.clsnum)
        record = claim_masks(args.maskpath, args.snapshot, args.resize, args.clsnum, args.resume,
                             args.overwrite)
        make_pseudo_masks(model, images, args.resize, args.maskpath, inference,
                          output, args.resume, args.show, record)


if __name__ == '__main__':
    run(main)
