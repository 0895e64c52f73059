"""Evaluate the score maps of any method as the WSOL benchmark does.

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
localization at MaxBoxAcc's best threshold. Writes evaluation.json, and where there are boxes
evaluation.png, to --out.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import Parser, fraction, positive_int
from utils.errors import InputError, run

COLUMNS = {'MaxBoxAcc': 'max_box_acc', 'MaxBoxAccV2': 'max_box_acc_v2', 'PxAP': 'pxap',
           'Top-1': 'top1', 'Top-5': 'top5'}


def main():
    args = parse()
    import cv2
    from tqdm import tqdm

    from utils.outputs.files import atomic_write, write_json
    from utils.outputs.top1top5 import read_top1top5

    cv2.setNumThreads(0)
    truths = read_truths(args)
    hits = {}
    if args.top1top5:
        hits = read_top1top5(args.top1top5, (truth.name for truth in truths))
    results = {}
    for name, folder in args.maps.items():
        evaluator = Evaluator()
        with ThreadPoolExecutor(args.jobs) as pool:
            measured = pool.map(lambda truth, folder=folder: measure(folder, truth), truths)
            for truth, measurement in zip(
                    truths, tqdm(measured, name, len(truths), unit='img', disable=None),
                    strict=True):
                evaluator.accumulate(*measurement, hits.get(truth.name, (False, False)))
        results[name] = {'count': len(truths), **evaluator.compute(args.thresholds, bool(hits))}
    write_json(args.out / 'evaluation.json', results)
    if truths[0].boxes is not None:
        content = curves(results)
        atomic_write(args.out / 'evaluation.png', lambda file: file.write(content))
    print(table(len(truths), results))
    print(f'\nwrote {args.out / "evaluation.json"}')


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
    from utils.localization.metrics import BENCHMARK_SIDE, pixel_counts, threshold_ious

    score_map = read_score_map(find_score_map(folder, truth.name), BENCHMARK_SIDE)
    masks = truth.read_masks(BENCHMARK_SIDE)
    return (None if truth.boxes is None else threshold_ious(score_map, truth.boxes, truth.size),
            None if masks is None else pixel_counts(score_map, *masks))


class Evaluator:
    """Accumulates the measurements of one method's maps."""

    def __init__(self):
        from utils.localization.measurement import BenchmarkMetrics
        from utils.localization.metrics import MaxBoxAcc

        self.benchmark = BenchmarkMetrics()
        self.named = {'top1': MaxBoxAcc(), 'top5': MaxBoxAcc()}

    def accumulate(self, ious, pixels, hits: tuple[bool, bool]) -> None:
        """Count one image; `hits`: whether its class is the classifier's first, among its five."""
        self.benchmark.accumulate(ious, pixels)
        for metric, hit in zip(self.named.values(), hits, strict=True):
            if hit and ious is not None:
                metric.accumulate_ious(ious[0])

    def compute(self, thresholds: list[float], classified: bool) -> dict:
        """All metrics, fractions; those without ground truth are left out."""
        from utils.localization.measurement import V2_DELTAS
        from utils.localization.metrics import STEPS

        metrics = {name: value for name, value in self.benchmark.compute().items()
                   if value is not None}
        count = self.benchmark.max_box_acc.count
        if not count:
            return metrics
        curve = self.benchmark.max_box_acc.hits[0] / count
        best = round(metrics['best_threshold'] * STEPS)
        at_deltas = self.benchmark.max_box_acc_v2.compute()[0].tolist()
        return {**metrics,
                'v2_at_delta': dict(zip(map(str, V2_DELTAS), at_deltas, strict=True)),
                'gt_known': {str(t): float(curve[min(round(t * STEPS), STEPS - 1)])
                             for t in thresholds},
                **{name: float(metric.hits[0, best] / count)
                   for name, metric in self.named.items() if classified},
                'curve': curve.tolist()}


def table(count: int, results: dict[str, dict]) -> str:
    """The metrics of all methods in percent, as a Markdown table."""
    rows = {name: {**{title: metrics[key] for title, key in COLUMNS.items() if key in metrics},
                   **{f'GT-known at {threshold}': value
                      for threshold, value in metrics.get('gt_known', {}).items()}}
            for name, metrics in results.items()}
    titles = list(next(iter(rows.values())))
    lines = [f'{count} images, %', '', f'| maps | {" | ".join(titles)} |',
             '| --- ' * (len(titles) + 1) + '|']
    for name, row in rows.items():
        lines.append(f'| {name} | {" | ".join(f"{100 * row[title]:.2f}" for title in titles)} |')
    return '\n'.join(lines)


def curves(results: dict[str, dict]) -> bytes:
    """MaxBoxAcc over the threshold, a curve for each method, as the content of a PNG file."""
    from matplotlib.figure import Figure

    from utils.outputs.drawing import png_of

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for name, metrics in results.items():
        steps = len(metrics['curve'])
        axes.plot([k / steps for k in range(steps)], metrics['curve'], label=name)
    axes.set(xlabel='threshold', ylabel='boxes with IoU >= 0.5', xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    return png_of(figure)


if __name__ == '__main__':
    run(main)
