"""Summarize a finished pipeline: a table of its metrics, and a contact sheet.

    python tools/report.py --run mini                     after demo.sh
    python tools/report.py --run NAME                     after demo.sh --data .../NAME
    python tools/report.py --dataset imagenet --run mini  after demo.sh --dataset imagenet

Reads the results.json of cls/test, cam/test, cam/test --evaluate --sweep and seg/test --sweep from
each stage's out/, or from the folder in it that --run names. Checkpoints, data and sizes are those
recorded there. A list without boxes needs no --evaluate and gives no localization metrics. If the
data folder has ground-truth masks, the precision and recall of the pseudo masks are printed too.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import ROOT, Parser, positive_int
from utils.data import cub, imagenet
from utils.data.images import read_binary_mask, read_stored_mask
from utils.errors import InputError, run
from utils.localization.boxes import CentreCrop
from utils.localization.pseudo_mask import seg_target
from utils.outputs.drawing import Row, contact_sheet
from utils.outputs.files import write_png
from utils.outputs.results import read_results

TITLES = ['image', 'plain CAM', 'fused CAM', 'Gaussian prior', 'pseudo mask', 'probability',
          'mask', 'box']
NEEDED = {'cls': ('top1',), 'cam': ('arguments', 'maskpath'), 'seg': ('count',)}


def main():
    parser = Parser(__doc__)
    parser.add_argument('--dataset', choices=['cub200', 'imagenet'], default='cub200',
                        help='dataset whose stages have run')
    parser.add_argument('--run', default='.', help="folder in each stage's out/")
    parser.add_argument('--images', type=positive_int, default=12, help='rows of the picture')
    parser.add_argument('--out', type=Path,
                        help="the picture (default: report.png in the run's folder of seg)")
    args = parser.parse_args()
    paths = {stage: ROOT / f'{args.dataset}-{stage}' / 'out' / args.run / 'results.json'
             for stage in NEEDED}
    cls, cam, seg = (require_results(paths[stage], keys) for stage, keys in NEEDED.items())
    out = args.out or paths['seg'].with_name('report.png')
    print(classification(cls))
    if 'strict' in seg:  # the list has boxes
        require_results(paths['cam'], ('evaluation', 'fused', 'sweep'))
        require_results(paths['seg'], ('sweep',))
        print(localization(cam['evaluation'], seg))
    else:
        print(f'{seg["arguments"]["list"]} has no boxes: no localization metrics')
    print(mask_quality(args.dataset, cam['arguments']))
    write_png(out, picture(args.dataset, cam_arguments(cam), seg['arguments'], args.images))
    print(f'\npicture: {out}')


def require_results(path: Path, keys: tuple[str, ...]) -> dict:
    """The content of a results.json. Raises InputError if it does not contain the nested `keys`."""
    results = found = read_results(path)
    for key in keys:
        if key not in found:
            raise InputError(f'{path} has no {".".join(keys)}: run that stage\'s test.py (cam with '
                             '--evaluate --sweep, seg with --sweep)')
        found = found[key]
    return results


def cam_arguments(cam: dict) -> dict:
    """The arguments that the CAMs were evaluated with; where they were not, those that pseudo masks
    were made with, at the sizes of the training."""
    if 'evaluation' in cam:
        return cam['evaluation']['arguments']
    sizes = {name: cam['training']['arguments'][name] for name in ('resize', 'crop')}
    return {**cam['arguments'], **sizes}


def classification(cls: dict) -> str:
    return (f'classification: top-1 {100 * cls["top1"]:.1f} %, top-5 {100 * cls["top5"]:.1f} %, '
            f'{cls["count"]} images')


def localization(evaluation: dict, seg: dict) -> str:
    """The metrics, in percent, as a Markdown table, and what the sweep of thresholds advises."""
    lines = ['',
             '| GT-known, strict count, % | threshold in use | best threshold | MaxBoxAcc '
             '| MaxBoxAccV2 | PxAP |',
             '| --- | --- | --- | --- | --- | --- |']
    cam_threshold, seg_threshold = (record['arguments']['threshold']
                                    for record in (evaluation, seg))
    for name, metrics, threshold in (('plain CAM', evaluation.get('deep'), cam_threshold),
                                     ('fused CAM', evaluation['fused'], cam_threshold),
                                     ('SPOL', seg, seg_threshold)):
        if metrics is None:
            continue
        sweep = metrics['sweep']
        field = ' | '.join('' if metrics[name] is None else f'{100 * metrics[name]:.1f}'
                           for name in ('max_box_acc', 'max_box_acc_v2', 'pxap'))
        lines.append(
            f'| {name} | {100 * metrics["strict"]["gt_known"]:.1f} (at {threshold}) '
            f'| {100 * sweep["best"]["strict"]["gt_known"]:.1f} (at {sweep["best_threshold"]:.2f}) '
            f'| {field} |')
    lines += [f'\n{name}: {metrics["sweep"]["advice"]}.'
              for name, metrics in (('fused CAM', evaluation['fused']), ('SPOL', seg))
              if metrics['sweep'].get('advice')]
    return '\n'.join(lines)


def mask_quality(dataset: str, arguments: dict) -> str:
    """How the pseudo masks compare with the ground-truth masks of their images, in percent of the
    pixels; empty where there are none."""
    import numpy as np

    images = read_images(dataset, arguments)
    if images.segmentation is None:
        return ''
    counts = np.zeros(5, np.int64)
    made = 0
    for index in range(len(images)):
        path = images.mask_path(Path(arguments['maskpath']), index)
        if not path.exists():  # left out by --skip_bad
            continue
        made += 1
        foreground, valid = seg_target(read_stored_mask(path))
        true = read_binary_mask(images.segmentation_path(index))
        background = valid & ~foreground
        counts += [(foreground & true).sum(), foreground.sum(), true.sum(),
                   (background & ~true).sum(), background.sum()]
    hit, foreground, true, correct, background = counts
    return (f'\npseudo masks of {made} images: foreground precision '
            f'{100 * hit / max(foreground, 1):.1f} %, recall {100 * hit / max(true, 1):.1f} %; '
            f'background precision {100 * correct / max(background, 1):.1f} %')


def read_images(dataset: str, arguments: dict):
    """The images of the list that a run has recorded."""
    datapath = Path(arguments['datapath'])
    if dataset == 'cub200':
        return cub.read_images(datapath, arguments['list'], arguments['clsnum'])
    if arguments['list'].startswith('train'):
        return imagenet.read_train_images(datapath, arguments['list'], arguments['clsnum'])
    return imagenet.read_val_images(datapath, arguments['list'], arguments['clsnum'], boxes=True)


def picture(dataset: str, cam: dict, seg: dict, count: int):
    """The contact sheet of images spread evenly over the list; `cam` and `seg` are the arguments
    that the two evaluations have recorded."""
    import torch

    from network.checkpoints import load_cam, load_seg
    from utils.engine.inference import Predictor
    from utils.stages.show import cam_rows, seg_rows, spread_views

    images = read_images(dataset, seg)
    cam_net = load_cam(cam['snapshot'], cam['backbone'])
    seg_net = load_seg(seg['snapshot'], seg['backbone'])

    def views(arguments: dict) -> list:
        crop = CentreCrop(arguments['resize'], arguments['crop'])
        return spread_views(images, crop, count)

    device = torch.device('cpu')
    cams = cam_rows(Predictor(cam_net, device, method='class_cams'), images, views(cam),
                    cam['threshold'])
    segmentations = seg_rows(Predictor(seg_net, device), views(seg), seg['threshold'])
    rows = [Row(a.pictures[:5] + b.pictures[1:], b.caption, b.mark)
            for a, b in zip(cams, segmentations, strict=True)]
    return contact_sheet(rows, TITLES)


if __name__ == '__main__':
    run(main)
