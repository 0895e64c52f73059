"""Stage 3 on ImageNet-1K: predict bounding boxes for the val images.

    python imagenet-seg/test.py                     Top-1, Top-5 and GT-known localization
    python imagenet-seg/test.py --threshold auto    also at a threshold chosen without boxes
    python imagenet-seg/test.py --select LIST       also at the best threshold of other images
    python imagenet-seg/test.py --sweep             at all thresholds
    python imagenet-seg/test.py --top1top5 none     GT-known alone, without a classifier

Reads out/model-6000 (or --snapshot: ours or the authors'), imagenet-cls/out/top1top5.npy,
<datapath>/val.txt, <datapath>/val/ and <datapath>/box/; writes out/boxes.csv, out/results.json and
out/show.png. --threshold auto reads train.txt and the pseudo masks, and records the threshold in
model-N.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import add_seg_test, inference_parser, parse
from utils.errors import run


def main():
    parser = inference_parser(__file__, __doc__, data='ImageNet2012', list='val.txt', clsnum=1000,
                              batch_size=128, resize=256, crop=224, snapshot='model-6000')
    add_seg_test(parser, threshold=0.8, cls='imagenet-cls')
    args = parse(parser)

    # Imported once the arguments are known to be right, since PyTorch takes seconds to import.
    from network import SegNet, load_checkpoint
    from utils.boxes import CentreCrop
    from utils.device import init_device
    from utils.drawing import SEG_TITLES, seg_rows, write_sheet
    from utils.imagenet import imagenet_images
    from utils.inference import Predictor
    from utils.lists import check_selection
    from utils.localization import evaluate
    from utils.results import RunFolder
    from utils.threshold import set_threshold
    from utils.top1top5 import read_top1top5

    def read(name):
        return imagenet_images(args.datapath, name, args.clsnum, 'val', boxes=True)

    def read_train(name):
        return imagenet_images(args.datapath, name, args.clsnum)

    device = init_device(args.device, args.seed, test=True)
    images, selection = read(args.list), read(args.select) if args.select else None
    check_selection(images, selection)
    hits = read_top1top5(args.top1top5, images.names) if args.top1top5 else None
    model = SegNet(args.backbone, pretrained='none')
    load_checkpoint(model, args.snapshot)
    predict = Predictor(model, device, args.amp)
    if args.threshold == 'auto':
        set_threshold(args, predict, read_train)
    crop, output = CentreCrop(args.resize, args.crop), RunFolder(args.savepath, vars(args))
    evaluate(predict, ('SPOL',), images, crop, args, output, hits, selection)
    write_sheet(output.path / 'show.png',
                seg_rows(predict, images, crop, args.show, args.threshold), SEG_TITLES)


if __name__ == '__main__':
    run(main)
