"""Ways to choose the threshold of a segmentation, compared on runs of demo.sh.

    python tools/thresholds.py cub50 leeds mini

Prints a row for each run, GT-known (strict count, centre crop of the validation images, %) at

    0.2           the paper's
    pseudo masks  that of `seg/test.py --threshold auto`, which the run has recorded; no boxes
    pseudo boxes  as in the Realistic Protocol (Murtaza et al., WACV 2025), which selects models by
                  pseudo boxes: most boxes of training images agree (IoU > 0.5) with the boxes of
                  their fused CAMs at 0.2; no boxes
    other boxes   best on the boxes of the other half of the validation images
    best          best on the images themselves

with the chosen threshold in parentheses. The first three need no boxes.
"""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from network.mffnet import load_seg
from utils.arguments import ROOT, Parser
from utils.boxes import CentreCrop, largest_box
from utils.device import choose_device
from utils.errors import InputError, run
from utils.evaluation import concatenate
from utils.images import read_stored_mask
from utils.inference import ListInference, Predictor
from utils.lists import ImageList, cub_images
from utils.localization import Measuring
from utils.results import newest_checkpoint, training_settings
from utils.threshold import MOST_IMAGES, THRESHOLDS

PAPER = 0.2


def main():
    parser = Parser(__doc__)
    parser.add_argument('names', nargs='+', metavar='NAME', help="runs' folders in cub200-*/out/")
    parser.add_argument('--list', default='val.txt', help='the images to test on')
    parser.add_argument('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    print('| | 0.2 | pseudo masks | pseudo boxes | other boxes | best |')
    print('| --- | --- | --- | --- | --- | --- |')
    for name in args.names:
        checkpoint = newest_checkpoint(ROOT / 'cub200-seg' / 'out' / name)
        if checkpoint is None:
            raise InputError(f'no checkpoint in cub200-seg/out/{name}: run demo.sh first')
        print(f'| {name} | {" | ".join(compare(checkpoint, args))} |', flush=True)


def compare(checkpoint: Path, args: Namespace) -> list[str]:
    """The cells of a run's row."""
    trained = training_settings(checkpoint)
    thresholds = np.union1d(THRESHOLDS, [PAPER, trained['threshold']])
    predict = Predictor(load_seg(checkpoint, trained['backbone']), choose_device(args.device))

    def correct(images: ImageList, *sides: int) -> np.ndarray:  # bool (images, thresholds)
        view = CentreCrop(*sides)
        inference = ListInference(predict, images, {'image': view},
                                  Measuring(images, view, thresholds, ('SPOL',)),
                                  Namespace(batch_size=16, num_workers=0))
        return concatenate([part['SPOL'] for part in inference.run('testing')]).correct

    def cell(column: int) -> str:
        return f'{100 * tested[:, column].mean():.1f} ({thresholds[column]:g})'

    datapath, classes, side = Path(trained['datapath']), trained['clsnum'], trained['resize']
    train = cub_images(datapath, trained['list'], classes)
    pseudo = correct(with_pseudo_boxes(train, Path(trained['maskpath'])), side)
    tested = correct(cub_images(datapath, args.list, classes), side, trained['crop'])
    even, odd = tested[::2], tested[1::2]
    of_even, of_odd = even.sum(0).argmax(), odd.sum(0).argmax()
    crossed = 50 * (even[:, of_odd].mean() + odd[:, of_even].mean())
    return [cell(np.searchsorted(thresholds, PAPER)),
            cell(np.searchsorted(thresholds, trained['threshold'])),
            cell(pseudo.sum(0).argmax()),
            f'{crossed:.1f} ({thresholds[of_even]:g}, {thresholds[of_odd]:g})',
            cell(tested.sum(0).argmax())]


def with_pseudo_boxes(images: ImageList, masks: Path) -> ImageList:
    """Some images of a list, their boxes those of their stored CAMs."""
    found = {index: largest_box(read_stored_mask(images.mask_path(masks, index))[..., 0] / 255,
                                PAPER) for index in images.sample(MOST_IMAGES)}
    kept = [index for index, box in found.items() if box]
    return replace(images, names=images.names[kept], labels=images.labels[kept],
                   boxes=[np.array([found[index]], float) for index in kept])


if __name__ == '__main__':
    run(main)
