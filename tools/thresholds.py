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

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import ROOT, Parser
from utils.errors import InputError, run
from utils.results import newest_checkpoint, training_settings

COLUMNS = ('0.2', 'CAMs', 'pseudo boxes', 'other boxes', 'best')
CAM_THRESHOLD = 0.2


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


def compare(checkpoint: Path, args: argparse.Namespace) -> list[str]:
    """The cells of a run's row."""
    import numpy as np

    from network.mffnet import load_seg
    from utils.boxes import CentreCrop
    from utils.device import choose_device
    from utils.evaluation import concatenate
    from utils.inference import ListInference, Predictor
    from utils.lists import cub_images
    from utils.localization import Measuring
    from utils.threshold import MOST_IMAGES, THRESHOLDS, Agreeing

    options = argparse.Namespace(batch_size=16, num_workers=0, skip_bad=False)
    trained = training_settings(checkpoint)
    datapath, classes = Path(trained['datapath']), trained['clsnum']
    predict = Predictor(load_seg(checkpoint, trained['backbone']), choose_device(args.device))
    crop, whole = CentreCrop(trained['resize'], trained['crop']), CentreCrop(trained['resize'])
    thresholds = np.union1d(THRESHOLDS, CAM_THRESHOLD)

    def table(images, view):
        measuring = Measuring(images, view, thresholds, ('SPOL',))
        found = ListInference(predict, images, {'image': view}, measuring, options).run('testing')
        return concatenate([part['SPOL'] for part in found])

    train = cub_images(datapath, trained['list'], classes)
    sample = train.sample(MOST_IMAGES)
    masks = Path(trained.get('maskpath', datapath / 'mask'))
    agreeing = ListInference(predict, train, {'image': whole},
                             Agreeing(train, masks, whole.side), options)
    agreement = sum(agreeing.run('CAMs', sample), np.zeros(len(THRESHOLDS)))
    pseudo = table(with_pseudo_boxes(train, sample, masks), whole).correct.sum(0)
    correct = table(cub_images(datapath, args.list, classes), crop).correct
    halves = correct[::2], correct[1::2]
    chosen = [int(half.sum(0).argmax()) for half in halves]
    crossed = np.mean([halves[1 - k][:, chosen[k]].mean() for k in (0, 1)])

    def cell(number: int) -> str:
        return f'{100 * correct[:, number].mean():.1f} ({thresholds[number]:g})'

    return [cell(int(np.flatnonzero(thresholds == CAM_THRESHOLD)[0])),
            cell(int(np.flatnonzero(thresholds == THRESHOLDS[agreement.argmax()])[0])),
            cell(int(pseudo.argmax())),
            f'{100 * crossed:.1f} ({", ".join(f"{thresholds[k]:g}" for k in chosen)})',
            cell(int(correct.sum(0).argmax()))]


def with_pseudo_boxes(images, indices: range, masks: Path):
    """The images at these places of a list, their boxes those of their stored CAMs."""
    from dataclasses import replace

    import numpy as np

    from utils.boxes import largest_box
    from utils.images import read_stored_mask

    boxes = [largest_box(read_stored_mask(images.mask_path(masks, index))[..., 0] / 255,
                         CAM_THRESHOLD) for index in indices]
    kept = [number for number, box in enumerate(boxes) if box]
    places = [indices[number] for number in kept]
    return replace(images, names=images.names[places], labels=images.labels[places],
                   boxes=[np.array([boxes[number]], float) for number in kept])


if __name__ == '__main__':
    run(main)
