"""Ways to choose the threshold of a segmentation, compared on runs of demo.sh.

    python tools/thresholds.py cub50 leeds mini

Prints a row for each run, GT-known (strict count, centre crop of the validation images, %) at

    0.2           the paper's
    CAMs          `seg/test.py --threshold auto`: masks of training images correlate best with their
                  fused CAMs; no boxes
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
from utils.threshold import MOST_IMAGES, THRESHOLDS, Agreeing

COLUMNS = ('0.2', 'CAMs', 'pseudo boxes', 'other boxes', 'best')
CAM_THRESHOLD = 0.2
OPTIONS = Namespace(batch_size=16, num_workers=0, skip_bad=False)


def main():
    parser = Parser(__doc__)
    parser.add_argument('names', nargs='+', metavar='NAME', help="runs' folders in cub200-*/out/")
    parser.add_argument('--list', default='val.txt', help='the images to test on')
    parser.add_argument('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    print(f'| | {" | ".join(COLUMNS)} |\n{"| --- " * (len(COLUMNS) + 1)}|')
    for name in args.names:
        checkpoint = newest_checkpoint(ROOT / 'cub200-seg' / 'out' / name)
        if checkpoint is None:
            raise InputError(f'no checkpoint in cub200-seg/out/{name}: run demo.sh first')
        print(f'| {name} | {" | ".join(compare(checkpoint, args))} |', flush=True)


def compare(checkpoint: Path, args: Namespace) -> list[str]:
    """The cells of a run's row."""
    trained = training_settings(checkpoint)
    datapath, classes = Path(trained['datapath']), trained['clsnum']
    masks = Path(trained.get('maskpath', datapath / 'mask'))
    predict = Predictor(load_seg(checkpoint, trained['backbone']), choose_device(args.device))
    crop, whole = CentreCrop(trained['resize'], trained['crop']), CentreCrop(trained['resize'])
    thresholds = np.union1d(THRESHOLDS, CAM_THRESHOLD)

    def correct(images: ImageList, view: CentreCrop) -> np.ndarray:  # bool (images, thresholds)
        measuring = Measuring(images, view, thresholds, ('SPOL',))
        found = ListInference(predict, images, {'image': view}, measuring, OPTIONS).run('testing')
        return concatenate([part['SPOL'] for part in found]).correct

    train = cub_images(datapath, trained['list'], classes)
    sample = train.sample(MOST_IMAGES)
    agreeing = ListInference(predict, train, {'image': whole},
                             Agreeing(train, masks, whole.side), OPTIONS)
    agreement = sum(agreeing.run('CAMs', sample), np.zeros(len(THRESHOLDS)))
    pseudo = correct(with_pseudo_boxes(train, sample, masks), whole)
    tested = correct(cub_images(datapath, args.list, classes), crop)
    halves = tested[::2], tested[1::2]
    chosen = [half.sum(0).argmax() for half in halves]
    crossed = np.mean([halves[1 - k][:, chosen[k]].mean() for k in (0, 1)])

    def cell(number: int) -> str:
        return f'{100 * tested[:, number].mean():.1f} ({thresholds[number]:g})'

    return [cell(np.searchsorted(thresholds, CAM_THRESHOLD)),
            cell(np.searchsorted(thresholds, THRESHOLDS[agreement.argmax()])),
            cell(pseudo.sum(0).argmax()),
            f'{100 * crossed:.1f} ({", ".join(f"{thresholds[k]:g}" for k in chosen)})',
            cell(tested.sum(0).argmax())]


def with_pseudo_boxes(images: ImageList, indices: range, masks: Path) -> ImageList:
    """The images at these places of a list, their boxes those of their stored CAMs."""
    found = {index: largest_box(
        read_stored_mask(images.mask_path(masks, index))[..., 0] / 255, CAM_THRESHOLD)
        for index in indices}
    kept = [index for index, box in found.items() if box]
    return replace(images, names=images.names[kept], labels=images.labels[kept],
                   boxes=[np.array([found[index]], float) for index in kept])


if __name__ == '__main__':
    run(main)
