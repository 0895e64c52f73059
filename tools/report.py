"""What a chain of stages reached: a table of its figures, and a picture of what it does.

    python tools/report.py --run mini                     after demo.sh
    python tools/report.py --chain imagenet --run mini    after demo.sh --dataset imagenet

From each stage's out/, or a folder in it that --run names, it reads the results.json of cls/test,
cam/test --evaluate --sweep and seg/test --sweep; all else (checkpoints, data, sizes) it takes
from the arguments recorded there. Writes the picture, `image | CAM | pseudo mask | predicted mask
| boxes (true green, predicted red)`, to --out.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from torch.utils.data import Subset, default_collate

from network import CamNet, SegNet, load_checkpoint
from utils.arguments import ROOT, Parser
from utils.data.cub import cub_images
from utils.data.datasets import TestImages
from utils.data.imagenet import boxed_val_images
from utils.data.lists import ImageList
from utils.engine.inference import Predictor
from utils.errors import InputError, run
from utils.localization.boxes import box_to_crop, clip_to_image, largest_box
from utils.localization.losses import segmentation_probability
from utils.localization.pseudo_mask import pseudo_mask, scaled_cam, seg_target
from utils.outputs.drawing import contact_sheet, cut_out, draw_boxes, heatmap, target_image
from utils.stages.make_masks import write_png

TITLES = ['image', 'CAM', 'pseudo mask', 'predicted mask', 'boxes']
CHAINS = {'cub200': cub_images, 'imagenet': boxed_val_images}
IMAGES, SIDE, BLOCKS = 12, 128, 2


def main():
    parser = Parser(__doc__)
    parser.add_argument('--chain', choices=CHAINS, default='cub200', help='whose stages')
    parser.add_argument('--run', default='.', help="folder in each stage's out/")
    parser.add_argument('--out', type=Path, default=Path('report.png'), help='the picture')
    args = parser.parse_args()
    needed = {'cls': 'top1', 'cam': 'evaluation', 'seg': 'sweep'}
    cls, cam, seg = (
        read_results(ROOT / f'{args.chain}-{stage}' / 'out' / args.run / 'results.json', needs)
        for stage, needs in needed.items())
    print(table(cls, cam['evaluation'], seg))
    picture = draw(CHAINS[args.chain], cam['evaluation']['arguments'], seg['arguments'],
                   seg['sweep']['best_threshold'])
    write_png(args.out, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    print(f'picture: {args.out}')


def read_results(path: Path, needs: str) -> dict:
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f'no results at {path}: run that stage first') from error
    if needs not in results or 'sweep' not in results.get('evaluation', {}).get('fused', 'sweep'):
        raise InputError(f'{path} has no {needs!r}: run that stage\'s test.py (cam with --evaluate '
                         '--sweep, seg with --sweep)')
    return results


def table(cls: dict, evaluation: dict, seg: dict) -> str:
    """The figures, in percent, as a Markdown table."""
    lines = [f'classification: top-1 {100 * cls["top1"]:.1f} %, top-5 {100 * cls["top5"]:.1f} %, '
             f'{cls["count"]} images',
             '',
             '| GT-known, strict count, % | the paper\'s threshold | the best for all images '
             '| MaxBoxAccV2 | PxAP |',
             '| --- | --- | --- | --- | --- |']
    cam_threshold, seg_threshold = (record['arguments']['threshold']
                                    for record in (evaluation, seg))
    for name, figures, threshold in (
            ('plain deep CAM', evaluation.get('deep'), cam_threshold),
            ('fused CAM (shallow x deep)', evaluation['fused'], cam_threshold),
            ('SPOL (after segmentation)', seg, seg_threshold)):
        if figures is None:
            continue
        sweep = figures['sweep']
        pxap = '' if figures['pxap'] is None else f'{100 * figures["pxap"]:.1f}'
        lines.append(
            f'| {name} | {100 * figures["strict"]["gt_known"]:.1f} (at {threshold}) '
            f'| {100 * sweep["best"]["strict"]["gt_known"]:.1f} (at {sweep["best_threshold"]:.2f}) '
            f'| {100 * figures["max_box_acc_v2"]:.1f} | {pxap} |')
    return '\n'.join(lines)


def draw(list_images: Callable, cam: dict, seg: dict, threshold: float) -> np.ndarray:
    """The contact sheet of images spread evenly over the list."""
    cam_args, seg_args = (SimpleNamespace(**{**arguments, 'datapath': Path(arguments['datapath'])})
                          for arguments in (cam, seg))
    images, folder = list_images(seg_args)
    cam_net = CamNet(cam_args.clsnum, cam_args.backbone, pretrained='none')
    load_checkpoint(cam_net, cam_args.snapshot)
    seg_net = SegNet(seg_args.backbone, pretrained='none')
    load_checkpoint(seg_net, seg_args.snapshot)

    dataset = TestImages(images, folder, seg_args.resize, seg_args.crop)
    chosen = np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int)
    batch = default_collate(list(Subset(dataset, chosen.tolist())))
    cams = Predictor(cam_net, cam_args)(batch['image']).cpu().numpy()
    logits = Predictor(seg_net, seg_args)(batch['image'])
    masks = segmentation_probability(logits, batch['image'].shape[1]).cpu().numpy()
    rows = [draw_row(image, cam[images.labels[index]], mask,
                     true_boxes(images, index, size, seg_args), threshold)
            for index, size, image, cam, mask in zip(
                chosen, batch['size'].numpy(), batch['image'].numpy(), cams, masks, strict=True)]
    return contact_sheet(rows, TITLES, SIDE, BLOCKS)


def true_boxes(images: ImageList, index: int, size: np.ndarray,
               args: argparse.Namespace | SimpleNamespace) -> np.ndarray:
    boxes = clip_to_image(images.boxes[index], tuple(size))
    return box_to_crop(boxes, tuple(size), args.resize, args.crop)


def draw_row(image: np.ndarray, cam: np.ndarray, mask: np.ndarray, true: np.ndarray,
             threshold: float) -> list[np.ndarray]:
    """One image's row: image, CAM, pseudo mask, predicted mask, boxes."""
    side = image.shape[0]
    target = seg_target(pseudo_mask(cam, (side, side)))
    return [image, heatmap(image, scaled_cam(cam, side)), target_image(*target),
            cut_out(image, mask > threshold),
            draw_boxes(image, true, largest_box(mask, threshold))]


if __name__ == '__main__':
    run(main)
