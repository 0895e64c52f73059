"""Stage 2 on ImageNet-1K: make pseudo masks of the training images.

    python imagenet-cam/test.py               pseudo masks, for imagenet-seg/train.py
    python imagenet-cam/test.py --resume      continue: keep the masks that are up to date
    python imagenet-cam/test.py --evaluate    how well the CAMs alone locate the val images

Reads out/model-6000, <datapath>/train.txt and <datapath>/train/; writes <datapath>/mask/ and
out/results.json. Masks of another checkpoint or other settings are overwritten only with
--overwrite. With --evaluate it reads val.txt and val/ instead, evaluates the centre crop as
imagenet-seg/test.py does, and writes results.json, fused-boxes.csv and show.png to out/; no pseudo
mask is written.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_cam_test, inference_parser, parse
from utils.errors import run


def main():
    parser = inference_parser(__file__, __doc__, data='ImageNet2012', list=None, clsnum=1000,
                              batch_size=128, resize=256, crop=None, snapshot='model-6000')
    add_cam_test(parser, threshold=0.2)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import CamNet, load_checkpoint
    from utils.boxes import CentreCrop
    from utils.device import init_device
    from utils.drawing import CAM_TITLES, cam_rows, write_sheet
    from utils.imagenet import imagenet_images
    from utils.inference import Predictor
    from utils.localization import evaluate
    from utils.pseudo_masks import make_pseudo_masks
    from utils.results import RunFolder, recorded_fusion

    device = init_device(args.device, args.seed, test=True)
    images = imagenet_images(args.datapath, args.list, args.clsnum,
                             'val' if args.evaluate else 'train', boxes=args.evaluate)
    model = CamNet(args.clsnum, args.backbone, auxiliary=False, pretrained='none',
                   **recorded_fusion(args.snapshot))
    load_checkpoint(model, args.snapshot)
    predict = Predictor(model, device, args.amp, 'class_cams')
    crop, output = CentreCrop(args.resize, args.crop), RunFolder(args.savepath, vars(args))
    if args.evaluate:
        evaluate(predict, ('fused',), images, crop, args, output)
    else:
        make_pseudo_masks(predict, images, args, output)
    write_sheet(output.path / 'show.png',
                cam_rows(predict, images, crop, args.show, args.threshold), CAM_TITLES)


if __name__ == '__main__':
    run(main)
