"""Evaluate the score maps of any methods as the WSOL benchmark does, with confidence intervals.

    python tools/evaluate_maps.py maps/ --list dataset/CUB_200_2011/val.txt
    python tools/evaluate_maps.py cam=maps/a spol=maps/b --list val.txt      one table of several
    python tools/evaluate_maps.py maps/ --metadata metadata/CUB/test         the benchmark's files
    python tools/evaluate_maps.py maps/ --metadata metadata/OpenImages/test --masks OpenImages
    python tools/evaluate_maps.py maps/a --list test.txt --select maps/b --select_list val.txt

A folder holds a map for each image: <image name>.npy, or PNG with 8 or 16 bits, with or without the
image's own suffix, of any size. `cam/test.py --evaluate --save_maps` and `seg/test.py --save_maps`
write such folders. --list is a list in this project's CUB format; the images are in image/ beside
it, and ground-truth masks, where there are any, in segmentation/. --metadata is a folder with the
benchmark's image_ids.txt, image_sizes.txt and localization.txt.

Reports MaxBoxAcc, MaxBoxAccV2, PxAP (Choe et al., CVPR 2020), GT-known at the thresholds of
--thresholds (the same boxes as MaxBoxAcc, on whole images), and with --top1top5 Top-1 and Top-5
localization at MaxBoxAcc's threshold. All have 95 % intervals, by bootstrap over images. Several
methods are compared with the first, or --against NAME. With --select, thresholds are chosen on
other images' maps. docs/judge.md explains all tables and how to write maps.

Writes evaluation.json and, where there are boxes, images.csv, classes.csv (where there are labels)
and evaluation.png to --out.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.judge.ground_truth import check_scale, from_image_list, read_benchmark
from utils.arguments import Parser, fraction, positive_int, seed
from utils.data.images import NO_FOREGROUND
from utils.data.lists import read_cub_list, segmentation_folder
from utils.errors import InputError, run, warn
from utils.localization.bootstrap import resampling_weights
from utils.outputs.files import write_bytes, write_json, write_png
from utils.outputs.results import versions
from utils.outputs.tables import write_csv
from utils.outputs.top1top5 import read_top1top5


def main():
    args = parse()
    import cv2
    import numpy as np

    from tools.judge.analysis import analyse_method, report
    from tools.judge.measuring import BASELINES, measure_all, processes

    cv2.setNumThreads(0)
    truths = read_truths(args.list, args.metadata, args.masks)
    others = read_truths(args.select_list, args.select_metadata) if args.select else []
    hits = None
    if args.top1top5:
        found = read_top1top5(args.top1top5, (truth.name for truth in truths))
        hits = np.array([found[truth.name] for truth in truths])
    sources = {**args.maps, **{name: name for name in BASELINES if args.baselines}}
    weights, methods = resampling_weights(len(truths), seed=args.seed), {}
    with processes(args.jobs) as map_images:
        for name, source in sources.items():
            levels = None
            if args.select:
                levels = measure_all(args.select.get(name, source), others, map_images,
                                     f'{name}, selection').best_levels()
            scores = measure_all(source, truths, map_images, name, hits)
            methods[name] = analyse_method(scores, weights, args.thresholds, levels)
    if not methods[args.against].samples:
        raise InputError(f'nothing to report: {NO_FOREGROUND}')
    if truths[0].masks and 'pxap' not in methods[args.against].samples:
        print(f'no PxAP: {NO_FOREGROUND}', file=sys.stderr)
    write(args, report(methods, truths, weights, args.against, args.quartiles), methods, truths)


def parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('maps', nargs='+', metavar='[NAME=]FOLDER', help='score maps, one folder for each method')
    add('--list', type=Path, help='an image list: name,label,xmin ymin xmax ymax')
    add('--metadata', type=Path, help="a folder with the benchmark's files")
    add('--masks', type=Path, help='where the masks of --metadata are (default: in its folder)')
    add('--thresholds', type=fraction, nargs='*', default=[0.1, 0.15, 0.2],
        help='GT-known is reported at these, rounded to thousandths')
    add('--top1top5', type=Path, help="a classifier's hits: the cls stage's top1top5.npy")
    add('--against', metavar='NAME', help='compare with this method (default: the first)')
    add('--baselines', action='store_true',
        help='also evaluate what needs no training: the whole image, centre box, centre Gaussian '
             'and noise')
    add('--select', nargs='+', metavar='[NAME=]FOLDER',
        help='choose the thresholds on these maps, a folder for each method')
    add('--select_list', type=Path, help='the image list of --select')
    add('--select_metadata', type=Path, help="a folder with the benchmark's files, for --select")
    add('--quartiles', action='store_true', help="sizes by the list's quartiles")
    add('--worst', type=positive_int, metavar='N',
        help='draw the N images of lowest IoU of each method to worst-NAME.png')
    add('--images', type=Path, help='the images, for --worst (default: image/ beside --list)')
    add('--jobs', type=positive_int, default=len(os.sched_getaffinity(0)), help='processes')
    add('--seed', type=seed, default=0, help='seed of the bootstrap')
    add('--out', type=Path, default=Path('evaluation'), help='the output folder')
    args = parser.parse_args()
    args.maps = folders_of(parser, args.maps)
    check(parser, args)
    return args


def folders_of(parser: Parser, texts: list[str]) -> dict[str, Path]:
    """Name -> folder, of [NAME=]FOLDER."""
    parts = [text.partition('=') for text in texts]
    folders = {name: Path(folder if equals else name) for name, equals, folder in parts}
    if len(folders) < len(parts):
        parser.error('two folders have the same name: call them NAME=FOLDER')
    for folder in folders.values():
        if not folder.is_dir():
            raise InputError(f'no folder of maps at {folder}: check the path')
    return folders


def check(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse arguments that do not belong together, and fill in those that depend on others."""
    from tools.judge.measuring import BASELINES

    if (args.list is None) == (args.metadata is None):
        parser.error('give either --list or --metadata')
    names = [*args.maps, *(BASELINES if args.baselines else ())]
    if len(set(names)) < len(names):
        parser.error(f'with --baselines, {", ".join(BASELINES)} are names of theirs: choose others')
    args.against = args.against or names[0]
    if args.against not in names:
        parser.error(f'--against {args.against}: choose one of {", ".join(names)}')
    if bool(args.select) != ((args.select_list is None) != (args.select_metadata is None)):
        parser.error('give --select together with either --select_list or --select_metadata')
    if args.select:
        args.select = selections(parser, args)
    if args.worst and not args.images:
        if not args.list:
            parser.error('--worst needs --images DIR')
        args.images = args.list.absolute().parent / 'image'


def selections(parser: Parser, args: argparse.Namespace) -> dict[str, Path]:
    """The folders of --select by the methods' names: named like these, or in their order."""
    folders = folders_of(parser, args.select)
    if folders.keys() == args.maps.keys():
        return folders
    if len(folders) != len(args.maps) or any('=' in text for text in args.select):
        parser.error(f'--select needs a folder for each of {", ".join(args.maps)}: NAME=FOLDER')
    return dict(zip(args.maps, folders.values(), strict=True))


def read_truths(image_list: Path | None, metadata: Path | None, masks: Path | None = None) -> list:
    """The ground truth of all images."""
    if metadata:
        truths = read_benchmark(metadata, masks)
    else:
        folder = image_list.absolute().parent
        truths = list(from_image_list(read_cub_list(image_list, 10**9, folder / 'image',
                                                    segmentation_folder(folder))))
    if not (truths[0].masks or truths[0].boxes is not None):
        raise InputError(f'{image_list} has no boxes, and there is no segmentation/ beside it: '
                         'nothing to evaluate against')
    if warning := check_scale(truths):
        warn(warning)
    return truths


def write(args: argparse.Namespace, content: dict, methods: dict, truths: list) -> None:
    """All files, and the tables on the screen."""
    from tools.judge.pictures import curves, worst_sheet
    from tools.judge.tables import CLASS_HEADER, IMAGE_HEADER, all_tables, class_rows, image_rows

    arguments = {name: str(value) if isinstance(value, Path) else value
                 for name, value in vars(args).items() if not isinstance(value, dict)}
    folders = {name: str(folder) for name, folder in args.maps.items()}
    write_json(args.out / 'evaluation.json', {
        **content, 'maps': folders, 'arguments': arguments, 'versions': versions()})
    if truths[0].boxes is not None:
        write_csv(args.out / 'images.csv', IMAGE_HEADER, image_rows(methods, truths))
        if all(truth.label is not None for truth in truths):
            write_csv(args.out / 'classes.csv', CLASS_HEADER, class_rows(methods, truths))
        write_bytes(args.out / 'evaluation.png', curves(methods))
        for name, folder in args.maps.items() if args.worst else ():
            write_png(args.out / f'worst-{name.strip("/").replace("/", "-")}.png',
                      worst_sheet(folder, methods[name], truths, args.images, args.worst))
    print(f'{all_tables(content)}\n\nwrote {args.out / "evaluation.json"}')


if __name__ == '__main__':
    run(main)
