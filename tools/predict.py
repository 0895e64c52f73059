"""Localize, segment and classify the objects of your own pictures.

    python tools/predict.py photo.jpg                     with the networks in resource/birds
    python tools/predict.py photos/ --draw                all pictures of a folder and below it
    python tools/predict.py photos/ --format coco         for pycocotools and CVAT
    python tools/predict.py photo.jpg --run mini          with the networks of demo.sh
    python tools/predict.py photo.jpg --seg model-8       with your own, or the authors'

Writes to --out: predictions.jsonl, a line for each picture, or predictions.json (COCO) or .csv as
--format says; masks/ and cams/ as PNG; settings.json; with --draw overlays/ (mask, box and class at
full size), pictures/ (all views) and sheet.png; with --save_maps maps/. A line says:

    file, name, mask, width, height    name: from the folder that was given; mask: its file in --out
    box          x0, y0, x1, y1 in pixels of the upright picture (an EXIF rotation is applied)
    score        how stable the box is: the IoU of the boxes at the threshold - 0.1 and + 0.1
    foreground   the share of the picture that the mask covers
    label, class, class_score, classes    the best class, its probability, and the five best: the
                 classifier's (--cls), or without one the CAM network's; null with --seg alone
    objects      with --objects all: box, score and run-length encoded mask (COCO's) of each region

COCO: a category's id is its label + 1, without classes 1, `object`; boxes are x, y, width, height
in whole pixels. Files that cannot be read are reported at the end, and the exit code is then 1. A
run that was interrupted continues with the same command. Of several paths, each folder's outputs
are in a folder of its name.
"""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import cv2
import numpy as np

from utils.arguments import Parser, fraction
from utils.boxes import find_regions
from utils.drawing import Row, contact_sheet, draw_boxes, heatmap, outline
from utils.errors import InputError, run, warn
from utils.files import source_of, write_array, write_csv, write_json, write_png, write_text
from utils.images import read_image, resize
from utils.pseudo_mask import MASK_SIDE, gaussian_prior
from utils.results import newest_checkpoint, versions

ROOT = Path(__file__).resolve().parents[1]
STAGES = ('cls', 'cam', 'seg')
# What both OpenCV and Pillow read, by the usual names.
SUFFIXES = {'.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.webp', '.avif', '.avifs', '.gif',
            '.bmp', '.tif', '.tiff', '.jp2', '.j2k', '.jpf', '.jpx', '.pbm', '.pgm', '.ppm', '.pnm'}
ON_SHEET = 24           # pictures
CELL = 240              # pixels; the side of a view
TINY, HUGE = 0.01, 0.9  # a mask's share of the picture that makes it useless
RESULTS = {'jsonl': 'predictions.jsonl', 'coco': 'predictions.json', 'csv': 'predictions.csv'}
COLUMNS = ('file', 'width', 'height', 'x0', 'y0', 'x1', 'y1', 'label', 'class', 'class_score',
           'score', 'mask')


def main() -> None:
    args = parse()
    pictures, left_out = find_pictures(args.paths, args.out)
    note = f' (left out: {left_out} hidden files, or no images by their names)' * bool(left_out)
    if not pictures:
        raise InputError(f'no pictures in {", ".join(map(str, args.paths))}{note}')
    from tqdm import tqdm

    from spol import load_spol
    from utils.inference import in_chunks

    cv2.setNumThreads(0)  # each core has pictures of its own already
    model = load_spol(**networks(args), **options(args))
    print(model)
    settings = {**model.settings, **{name: getattr(args, name) for name in (
        'objects', 'draw', 'save_maps', 'format')}}
    result = args.out / RESULTS[args.format]
    records = Records(result.with_name(f'.{result.name}.part'), settings)
    write_json(args.out / 'settings.json', {**settings, 'versions': versions()})
    todo = pictures[count_done(records, pictures):]
    work = in_chunks(lambda chunk: predict(model, chunk, args), todo, model.chunk_size)
    for record in tqdm(work, total=len(todo), unit='img', disable=None):
        records.append(record)
    errors = [record['error'] for record in records if 'error' in record]
    done = [(record['name'], record['foreground']) for record in records if 'error' not in record]
    if args.draw and done:
        drawn = [args.out / 'pictures' / f'{name}.png' for name, _ in done[:ON_SHEET]]
        write_png(args.out / 'sheet.png', np.vstack(list(map(read_image, drawn))))
        print(f'wrote {args.out / "sheet.png"}')
    write_result(result, args.format, (record for record in records if 'error' not in record))
    records.path.unlink()
    print(f'wrote {len(done)} predictions to {result}{note}')
    warn_of_useless_masks([share for _, share in done])
    if errors:
        print(f'{len(errors)} files cannot be read:', *errors, sep='\n  ', file=sys.stderr)
        sys.exit(1)


def parse() -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('paths', nargs='+', type=Path, metavar='PHOTO_OR_FOLDER', help='pictures, or folders')
    add_networks(parser)
    add('--out', type=Path, default=Path('predictions'), help='the output folder')
    add('--format', choices=RESULTS, default='jsonl', help='format of the predictions')
    add('--objects', choices=['largest', 'all'], default='largest',
        help='all: every region of at least 1 %% of the picture has a box and mask of its own')
    add('--draw', action='store_true', help='also draw each picture with its maps, mask and box')
    add('--save_maps', action='store_true', help='also write maps for tools/evaluate_maps.py')
    args = parser.parse_args()
    names = [path.resolve().name if path.is_dir() else path.name for path in args.paths]
    for path, name in zip(args.paths, names, strict=True):
        if not path.exists():
            raise InputError(f'no picture at {path}: check the path')
        if path.resolve() == args.out.resolve():
            raise InputError(f'--out {args.out} is the folder of the pictures: choose another')
        if names.count(name) > 1:
            raise InputError(f'two of the paths are called {name}: predict them one after the '
                             'other, each with its own --out')
    return args


def add_networks(parser: Parser) -> None:
    add = parser.add_argument
    add('--model', help='a model that comes with the repository: birds or butterflies (default: '
        'birds, unless --run or checkpoints are given)')
    add('--run', metavar='NAME', help='the run of demo.sh in cub200-*/out/NAME')
    for stage in STAGES:
        add(f'--{stage}', type=Path, help=f'a checkpoint of the {stage} stage')
    add('--backbone', metavar='NETWORK', help='the network of cam and seg (default: as recorded '
        'beside the checkpoint, else resnet50)')
    add('--arch', metavar='NETWORK', help='that of cls (default: as recorded, else '
        'efficientnet_b7)')
    add('--threshold', type=fraction, help='a pixel is foreground where the map exceeds this '
        '(default: as recorded, else 0.2)')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')


def networks(args: Namespace) -> dict[str, Any]:
    checkpoints = {stage: getattr(args, stage) for stage in STAGES if getattr(args, stage)}
    if sum(map(bool, (args.model, args.run, checkpoints))) > 1:
        raise InputError('--model, --run and checkpoints (--cls, --cam, --seg): give one of them')
    if args.run:
        return checkpoints_of_run(args.run)
    return checkpoints or {'model': args.model or 'birds'}


def options(args: Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ('backbone', 'arch', 'threshold', 'device')}


def runs() -> list[str]:
    """The runs of demo.sh that have a cam or seg network."""
    return sorted({model.parent.name for stage in ('cam', 'seg')
                   for model in ROOT.glob(f'cub200-{stage}/out/*/model-*')})


def checkpoints_of_run(name: str) -> dict[str, Path]:
    if name not in runs():
        raise InputError(f'--run {name}: no networks in cub200-*/out/{name}; there are '
                         f'{", ".join(runs()) or "none"}: run demo.sh first')
    found = {stage: newest_checkpoint(ROOT / f'cub200-{stage}' / 'out' / name) for stage in STAGES}
    return {stage: checkpoint for stage, checkpoint in found.items() if checkpoint}


def find_pictures(paths: list[Path], out: Path) -> tuple[list[tuple[Path, Path]], int]:
    """The pictures of paths, as (file, its name among the outputs), and how many other files there
    are. Links are followed; the output folder and hidden folders are left out."""
    found, left_out = [], 0
    for path in paths:
        if path.is_file():
            found.append((path, Path(path.name)))
            continue
        parent, seen = Path(path.resolve().name if len(paths) > 1 else ''), {out.resolve()}
        for folder, below, names in os.walk(path, followlinks=True,
                                            onerror=lambda error: warn(str(error))):
            real = Path(folder).resolve()
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if name[0] != '.')
            chosen = [Path(folder, name) for name in sorted(names) if name[0] != '.'
                      and Path(name).suffix.lower() in SUFFIXES]
            found += [(file, parent / file.relative_to(path)) for file in chosen]
            left_out += len(names) - len(chosen)
    return found, left_out


def count_done(records: 'Records', pictures: list[tuple[Path, Path]]) -> int:
    """How many pictures an interrupted run has done. Raises InputError if it was on others."""
    count = 0
    for count, record in enumerate(records, 1):
        file = pictures[count - 1][0] if count <= len(pictures) else None
        if record['file'] != str(file) or record['source'] != state_of(file):
            raise InputError(f'{records.path} belongs to a run on other pictures (there '
                             f'{record["file"]}, now {file}, or it was replaced): finish that run, '
                             'or use another --out')
    return count


def state_of(path: Path | None) -> str | None:
    return source_of(path) if path and path.exists() else None


def predict(model: Any, chunk: list[tuple[Path, Path]], args: Namespace) -> Iterator[dict]:
    """Predict some of the pictures and write their files; the record of each."""
    for (path, name), found in zip(chunk, model.predict(path for path, _ in chunk), strict=True):
        record = {'file': str(path), 'source': state_of(path)}
        if isinstance(found, InputError):
            yield {**record, 'error': str(found)}
        else:
            yield {**record, **write_prediction(found, name, args)}


def write_prediction(found: Any, name: Path, args: Namespace) -> dict[str, Any]:
    """Write a prediction's files; its record."""
    png = f'{name}.png'
    write_png(args.out / 'masks' / png, found.mask)
    if found.cam is not None:
        write_png(args.out / 'cams' / png, (255 * found.cam.clip(0, 1)).round().astype('u1'))
    if args.draw:
        write_png(args.out / 'pictures' / png, draw(found, name, args.objects))
        write_png(args.out / 'overlays' / png, found.overlay(args.objects))
    if args.save_maps:
        write_array(args.out / 'maps' / f'{name}.npy', found.score_map)
    height, width = found.image.shape[:2]
    record = {'name': name.as_posix(), 'mask': f'masks/{png}', 'width': width, 'height': height,
              'box': found.box and [round(value, 2) for value in found.box],
              'score': rounded(found.score), 'foreground': rounded(float(found.mask.mean())),
              'label': found.label, 'class': found.classes[0][0] if found.classes else None,
              'class_score': rounded(found.class_score),
              'classes': [[title, rounded(score)] for title, score in found.classes]}
    if args.objects == 'all' or args.format == 'coco':
        regions = find_regions(found.score_map, found.threshold, (height, width), args.objects)
        record['objects'] = list(map(describe, regions))
    return record


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def describe(region: Any) -> dict[str, Any]:
    return {'box': list(region.box), 'score': rounded(region.score),
            'segmentation': run_lengths(region.mask)}


def views(prediction: Any, objects: str = 'largest') -> dict[str, np.ndarray]:
    """The pictures of --draw by their names: uint8 RGB, each within 240 x 240."""
    small = prediction.within(CELL)
    image, size, pictures = small.image, small.image.shape[:2], {'image': small.image}
    if small.cam is not None:
        prior = gaussian_prior(resize(small.cam_map, (MASK_SIDE, MASK_SIDE)))
        pictures['fused CAM'] = heatmap(image, small.cam)
        pictures['Gaussian prior'] = heatmap(image, resize(prior, size))
    if small.score_map is not small.cam_map:
        pictures['probability'] = heatmap(image, resize(small.score_map, size))
    pictures['mask'] = outline(image, small.mask)
    pictures['box'] = draw_boxes(image, None, small.box)
    for region in small.objects if objects == 'all' else ():
        pictures['box'] = draw_boxes(pictures['box'], None, region.box)
    return pictures


def draw(prediction: Any, name: Path, objects: str) -> np.ndarray:
    """The views side by side, below their names."""
    pictures = views(prediction, objects)
    row = Row(list(pictures.values()), prediction.caption)
    return contact_sheet([row], [name.name, *list(pictures)[1:]], side=CELL)


class Records:
    """The records of a run, appended to a hidden file until all are there; an interrupted run
    leaves that file, and the next one continues. Its first line has the settings."""

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        # A line that a process has not written to its end is cut.
        lines = [line for line in lines if line.endswith('\n')] or [json.dumps(settings) + '\n']
        write_text(path, ''.join(lines))
        recorded = json.loads(lines[0])
        names = [name for name in settings if recorded.get(name) != settings[name]]
        if names:
            raise InputError(f'{path} belongs to a run with other settings ({", ".join(names)}): '
                             'finish that run, or use another --out')

    def __iter__(self) -> Iterator[dict]:
        with open(self.path) as file:
            next(file)
            yield from map(json.loads, file)

    def append(self, record: dict[str, Any]) -> None:
        with open(self.path, 'a') as file:
            file.write(json.dumps(record) + '\n')


def warn_of_useless_masks(shares: list[float]) -> None:
    """`shares`: of the pictures, what their masks cover."""
    for text, useless in ((f'less than {TINY:.0%}', [share < TINY for share in shares]),
                          (f'over {HUGE:.0%}', [share > HUGE for share in shares])):
        if 2 * sum(useless) > len(shares):
            warn(f'{sum(useless)} of {len(shares)} masks cover {text} of their pictures: try '
                 'another --threshold, or train on pictures of this kind')


def write_result(path: Path, format: str, records: Iterable[dict]) -> None:
    if format == 'csv':
        write_csv(path, COLUMNS, csv_rows(records))
    elif format == 'coco':
        write_text(path, json.dumps(coco(records)))
    else:
        write_text(path, ''.join(
            json.dumps({key: value for key, value in record.items() if key != 'source'}) + '\n'
            for record in records))


def csv_rows(records: Iterable[dict]) -> Iterator[list]:
    """A row for each picture, or for each of its objects."""
    for record in records:
        for found in record.get('objects') or [record]:
            yield [record['file'], record['width'], record['height'],
                   *(found['box'] or [None] * 4), record['label'], record['class'],
                   record['class_score'], found['score'], record['mask']]


def coco(records: Iterable[dict]) -> dict[str, Any]:
    """COCO's format, an annotation for each of a record's `objects`; ids count from 1."""
    images, annotations, categories = [], [], {}
    for number, record in enumerate(records, 1):
        images.append({'id': number, 'file_name': record['name'], 'width': record['width'],
                       'height': record['height']})
        category = 1 if record['label'] is None else record['label'] + 1
        for found in record['objects']:
            categories[category] = record['class'] or 'object'
            x0, y0, x1, y1 = found['box']
            annotations.append({
                'id': len(annotations) + 1, 'image_id': number, 'category_id': category,
                'bbox': [x0, y0, x1 - x0, y1 - y0],
                'area': sum(found['segmentation']['counts'][1::2]),
                'segmentation': found['segmentation'], 'iscrowd': 0, 'score': found['score']})
    return {'info': {'description': 'SPOL: boxes and masks', 'version': '1.0'}, 'licenses': [],
            'images': images, 'annotations': annotations,
            'categories': [{'id': key, 'name': name} for key, name in sorted(categories.items())]}


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """A mask, bool H x W -> COCO's run-length encoding, column by column from the background."""
    pixels = mask.ravel(order='F')
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff([0, *changes, pixels.size]).tolist()
    return {'size': list(mask.shape), 'counts': [0] * bool(pixels[0]) + lengths}


if __name__ == '__main__':
    run(main)
