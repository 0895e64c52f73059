"""Stage 2 on CUB-200-2011: make pseudo masks of the training images.

    python cub200-cam/test.py               pseudo masks, for cub200-seg/train.py
    python cub200-cam/test.py --resume      continue: keep the masks that are up to date
    python cub200-cam/test.py --evaluate    how well the CAMs alone locate the val images

Reads out/model-32, <datapath>/train.txt and <datapath>/image/; writes <datapath>/mask/ and
out/results.json. Masks of another checkpoint or other settings are overwritten only with
--overwrite. With --evaluate it reads val.txt instead, evaluates the centre crop as
cub200-seg/test.py does, and writes results.json, deep-boxes.csv, fused-boxes.csv and show.png to
out/; no pseudo mask is written.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_cam_test, inference_parser, parse
from utils.errors import run


def main():
    parser = inference_parser(__file__, __doc__, data='CUB_200_2011', list=None, clsnum=200,
                              batch_size=64, resize=256, crop=None, snapshot='model-32')
    add_cam_test(parser, threshold=0.2)
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import CamNet, load_checkpoint
    from utils.boxes import CentreCrop
    from utils.device import init_device
    from utils.drawing import CAM_TITLES, cam_rows, write_sheet
    from utils.inference import Predictor
    from utils.lists import cub_images
    from utils.localization import evaluate
    from utils.pseudo_masks import make_pseudo_masks
    from utils.results import RunFolder, recorded_fusion

    device = init_device(args.device, args.seed, test=True)
    images = cub_images(args.datapath, args.list, args.clsnum)
    model = CamNet(args.clsnum, args.backbone, pretrained='none', **recorded_fusion(args.snapshot))
    load_checkpoint(model, args.snapshot)
    predict = Predictor(model, device, args.amp, 'class_cams')
    crop, output = CentreCrop(args.resize, args.crop), RunFolder(args.savepath, vars(args))
    if args.evaluate:
        evaluate(predict, ('deep', 'fused'), images, crop, args, output)
    else:
        make_pseudo_masks(predict, images, args, output)
    write_sheet(output.path / 'show.png',
                cam_rows(predict, images, crop, args.show, args.threshold), CAM_TITLES)


if __name__ == '__main__':
    run(main)
