"""Judge the score maps of any method as the WSOL benchmark does.

    python tools/evaluate_maps.py maps/ --list dataset/CUB_200_2011/val.txt
    python tools/evaluate_maps.py cam=maps/a spol=maps/b --list val.txt      one table of several
    python tools/evaluate_maps.py maps/ --metadata metadata/CUB/test         the benchmark's files
    python tools/evaluate_maps.py maps/ --metadata metadata/OpenImages/test --masks OpenImages

A folder holds a map for each image: <image name>.npy, or PNG with 8 or 16 bits, with or without the
image's own suffix, of any size. `cam/test.py --evaluate --save_maps` and `seg/test.py --save_maps`
write such folders. --list is a list in this project's CUB format; the images are in image/ beside
it, and ground-truth masks, where there are any, in segmentation/. --metadata is a folder with the
benchmark's image_ids.txt, image_sizes.txt and localization.txt.

Reports MaxBoxAcc, MaxBoxAccV2, PxAP (Choe et al., CVPR 2020), GT-known at the thresholds of
--thresholds (the same boxes as MaxBoxAcc, on whole images), and with --top1top5 Top-1 and Top-5
localization at MaxBoxAcc's best threshold. Writes evaluation.json and evaluation.png to --out.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import Parser, fraction, positive_int
from utils.errors import InputError, run

COLUMNS = {'MaxBoxAcc': 'max_box_acc', 'MaxBoxAccV2': 'max_box_acc_v2', 'PxAP': 'pxap'}


def main():
    args = parse()
    import cv2
    from tqdm import tqdm

    from utils.outputs.files import write_json, write_whole
    from utils.outputs.top1top5 import read_top1top5

    cv2.setNumThreads(0)
    truths = read_truths(args)
    hits = args.top1top5 and read_top1top5(args.top1top5, (truth.name for truth in truths))
    results = {}
    for name, folder in args.maps.items():
        judge = Judge()
        with ThreadPoolExecutor(args.jobs) as pool:
            measured = pool.map(lambda truth, folder=folder: measure(folder, truth), truths)
            for truth, measurement in zip(
                    truths, tqdm(measured, name, len(truths), unit='img', disable=None),
                    strict=True):
                judge.accumulate(*measurement, hits[truth.name] if hits else None)
        results[name] = judge.compute(args.thresholds)
    write_json(args.out / 'evaluation.json', results)
    content = curves(results)
    write_whole(args.out / 'evaluation.png', lambda file: file.write(content))
    print(table(results))
    print(f'\nwrote evaluation.json and evaluation.png to {args.out}')


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('maps', nargs='+', metavar='[NAME=]FOLDER', help='score maps, one folder for each method')
    add('--list', type=Path, help='an image list: name,label,xmin ymin xmax ymax')
    add('--metadata', type=Path, help="a folder with the benchmark's files")
    add('--masks', type=Path, help='where the masks of --metadata are (default: in its folder)')
    add('--thresholds', type=fraction, nargs='*', default=[0.1, 0.15, 0.2],
        help='GT-known is reported at these, rounded to thousandths')
    add('--top1top5', type=Path, help="a classifier's hits: the cls stage's top1top5.npy")
    add('--jobs', type=positive_int, default=4, help='threads')
    add('--out', type=Path, default=Path('evaluation'), help='the output folder')
    args = parser.parse_args()
    if (args.list is None) == (args.metadata is None):
        parser.error('give either --list or --metadata')
    folders = [text.partition('=') for text in args.maps]
    args.maps = {name: Path(folder if equals else name) for name, equals, folder in folders}
    if len(args.maps) < len(folders):
        parser.error('two folders have the same name: call them NAME=FOLDER')
    for folder in args.maps.values():
        if not folder.is_dir():
            raise InputError(f'no folder of maps at {folder}: check the path')
    return args


def read_truths(args) -> list:
    """The ground truth of all images."""
    from utils.data.ground_truth import from_image_list, read_benchmark
    from utils.data.lists import read_cub_list

    if args.metadata:
        return read_benchmark(args.metadata, args.masks)
    folder = args.list.absolute().parent
    masks = folder / 'segmentation'
    return list(from_image_list(read_cub_list(args.list, 10**9, folder / 'image',
                                              masks if masks.is_dir() else None)))


def measure(folder: Path, truth) -> tuple:
    """(IoUs as `threshold_ious` returns them or None, `pixel_counts` or None) of an image."""
    from utils.data.score_maps import find_score_map, read_score_map
    from utils.localization.metrics import SIDE, pixel_counts, threshold_ious

    score_map = read_score_map(find_score_map(folder, truth.name), SIDE)
    masks = truth.read_masks(SIDE)
    return (None if truth.boxes is None else threshold_ious(score_map, truth.boxes, truth.size),
            None if masks is None else pixel_counts(score_map, *masks))


class Judge:
    """Accumulates the measurements of one method's maps."""

    def __init__(self):
        from utils.localization.measurement import V2_DELTAS
        from utils.localization.metrics import MaxBoxAcc, PxAP

        self.largest, self.every = MaxBoxAcc(), MaxBoxAcc(V2_DELTAS, multi_contour=True)
        self.named = {'top1': MaxBoxAcc(), 'top5': MaxBoxAcc()}
        self.pixels, self.count, self.classified = PxAP(), 0, False

    def accumulate(self, ious, pixels, hits: tuple[bool, bool] | None) -> None:
        """Count one image; `hits`: whether its class is the classifier's first, among its five."""
        self.count += 1
        if ious is not None:
            self.largest.accumulate_ious(ious[0])
            self.every.accumulate_ious(ious[1])
            self.classified = hits is not None
            for name, hit in zip(self.named, hits or (), strict=False):
                if hit:
                    self.named[name].accumulate_ious(ious[0])
        if pixels is not None:
            self.pixels.accumulate_counts(pixels)

    def compute(self, thresholds: list[float]) -> dict:
        """All figures, fractions; those without ground truth are left out."""
        from utils.localization.measurement import V2_DELTAS
        from utils.localization.metrics import STEPS

        figures = {'count': self.count}
        if self.largest.count:
            (figures['max_box_acc'],), (best,) = (x.tolist() for x in self.largest.compute())
            figures['best_threshold'] = best
            at_deltas = self.every.compute()[0]
            figures['max_box_acc_v2'] = float(at_deltas.mean())
            figures['v2_at_delta'] = {str(delta): float(value) for delta, value in
                                      zip(V2_DELTAS, at_deltas, strict=True)}
            curve = self.largest.hits[0] / self.count
            figures['gt_known'] = {str(t): float(curve[round(t * STEPS)]) for t in thresholds
                                   if round(t * STEPS) < STEPS}
            figures['curve'] = curve.tolist()
            if self.classified:
                for name, metric in self.named.items():
                    figures[name] = float(metric.hits[0, round(best * STEPS)] / self.count)
        if self.pixels.counts[1].any():
            figures['pxap'] = self.pixels.compute()
        return figures


def table(results: dict[str, dict]) -> str:
    """The figures of all methods in percent, as a Markdown table."""
    first = next(iter(results.values()))
    columns = {title: [key] for title, key in COLUMNS.items() if key in first}
    columns |= {f'GT-known at {t}': ['gt_known', t] for t in first.get('gt_known', ())}
    columns |= {title: [key] for title, key in (('Top-1', 'top1'), ('Top-5', 'top5'))
                if key in first}
    lines = [f'{first["count"]} images, %', '', f'| maps | {" | ".join(columns)} |',
             '| --- ' * (len(columns) + 1) + '|']
    for name, figures in results.items():
        cells = []
        for keys in columns.values():
            value = figures
            for key in keys:
                value = value[key]
            cells.append(f'{100 * value:.2f}')
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def curves(results: dict[str, dict]) -> bytes:
    """MaxBoxAcc over the threshold, a curve for each method, as the content of a PNG file."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for name, figures in results.items():
        if 'curve' in figures:
            axes.plot([k / len(figures['curve']) for k in range(len(figures['curve']))],
                      figures['curve'], label=name)
    axes.set(xlabel='threshold', ylabel='boxes with IoU >= 0.5', xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=120)
    return content.getvalue()


if __name__ == '__main__':
    run(main)
