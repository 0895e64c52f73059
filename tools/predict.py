"""Localize, segment and classify the objects of your own pictures.

    python tools/predict.py photo.jpg                     with the networks in resource/birds
    python tools/predict.py photos/ --draw                all pictures of a folder and below it
    python tools/predict.py photos/ --format coco         for pycocotools and CVAT
    python tools/predict.py photo.jpg --run mini          with the networks of demo.sh
    python tools/predict.py photo.jpg --seg model-8       with your own, or the authors'

Writes to --out: predictions.jsonl, a line for each picture, or predictions.json (COCO) or .csv as
--format says; masks/ and cams/ as PNG; with --draw overlays/ (mask, box and class at full size),
pictures/ (all views) and sheet.png. A line says:

    file, name, mask, width, height    name: from the folder that was given; mask: its file in --out
    box          x0, y0, x1, y1 in pixels of the upright picture (an EXIF rotation is applied)
    score        how stable the box is: the IoU of the boxes at the threshold - 0.1 and + 0.1
    foreground   the share of the picture that the mask covers
    label, class, class_score, classes    the best class, its probability, and the five best: the
                 classifier's (--cls), or without one the CAM network's; null with --seg alone
    objects      with --objects all: box, score and run-length encoded mask (COCO's) of each region

COCO: a category's id is its label + 1, without classes 1, `object`; boxes are x, y, width, height
in whole pixels. Of several folders, each has its outputs in a folder of its name. Files that cannot
be read are reported at the end, and the exit code is then 1.
"""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from utils.arguments import ROOT, Parser, fraction
from utils.drawing import Row, contact_sheet, draw_boxes, heatmap, outline
from utils.errors import InputError, run, warn
from utils.files import write_csv, write_png, write_text
from utils.images import read_image, resize
from utils.pseudo_mask import MASK_SIDE, gaussian_prior
from utils.regions import find_regions
from utils.results import newest_checkpoint

STAGES = ('cls', 'cam', 'seg')
SUFFIXES = {'.jpg', '.jpeg', '.jfif', '.png', '.webp', '.avif', '.gif', '.bmp', '.tif', '.tiff',
            '.jp2', '.pgm', '.ppm'}  # what both OpenCV and Pillow read
ON_SHEET = 24           # pictures
CELL = 240              # pixels; the side of a view
TINY, HUGE = 0.01, 0.9  # a mask's share of the picture that makes it useless
RESULTS = {'jsonl': 'predictions.jsonl', 'coco': 'predictions.json', 'csv': 'predictions.csv'}
CORNERS = ('x0', 'y0', 'x1', 'y1')
COLUMNS = ('file', 'width', 'height', *CORNERS, 'label', 'class', 'class_score', 'score', 'mask')


def main() -> None:
    args = parse()
    pictures = find_pictures(args.paths, args.out)
    from tqdm import tqdm

    from spol import load_spol
    from utils.inference import in_chunks

    cv2.setNumThreads(0)  # each core has pictures of its own already
    model = load_spol(**networks(args))
    print(model)
    records, errors = [], []
    work = in_chunks(partial(predict, model, args), pictures.items(), model.chunk_size)
    for found in tqdm(work, total=len(pictures), unit='img', disable=None):
        (errors if isinstance(found, InputError) else records).append(found)
    if args.draw and records:
        drawn = [args.out / 'pictures' / f'{record["name"]}.png' for record in records[:ON_SHEET]]
        write_png(args.out / 'sheet.png', np.vstack([read_image(path) for path in drawn]))
    result = args.out / RESULTS[args.format]
    write_result(result, args.format, records)
    print(f'wrote {len(records)} predictions to {result}')
    useless = sum(not TINY <= record['foreground'] <= HUGE for record in records)
    if 2 * useless > len(records):
        warn(f'{useless} of {len(records)} masks cover less than {TINY:.0%} or over {HUGE:.0%} of '
             'their pictures: try another --threshold, or train on pictures of this kind')
    report(errors)


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
    return parser.parse_args()


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
    """The arguments of `load_spol`."""
    chosen = {stage: getattr(args, stage) for stage in STAGES if getattr(args, stage)}
    if args.run:
        newest = {stage: newest_checkpoint(ROOT / f'cub200-{stage}' / 'out' / args.run)
                  for stage in STAGES}
        if not any(newest.values()):
            raise InputError(f'no model-N in cub200-*/out/{args.run}: run demo.sh first')
        chosen = {**newest, **chosen}
    return {**chosen, 'model': args.model or (None if chosen else 'birds'),
            'backbone': args.backbone, 'arch': args.arch, 'threshold': args.threshold,
            'device': args.device}


def find_pictures(paths: list[Path], out: Path) -> dict[str, Path]:
    """The pictures by their names among the outputs. Links are followed; `out`, hidden files and
    hidden folders are left out. Raises InputError."""
    found, seen = [], {out.resolve()}
    for path in paths:
        if not path.exists():
            raise InputError(f'no picture at {path}: check the path')
        if path.is_file():
            found.append((path.name, path))
            continue
        parent = path.resolve().name if len(paths) > 1 else ''
        for folder, below, names in os.walk(path, followlinks=True):
            real = Path(folder).resolve()
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if name[0] != '.')
            files = [Path(folder, name) for name in names
                     if name[0] != '.' and Path(name).suffix.lower() in SUFFIXES]
            found += [(Path(parent, file.relative_to(path)).as_posix(), file) for file in files]
    pictures = dict(sorted(found))
    if not pictures:
        raise InputError(f'no pictures in {", ".join(map(str, paths))}')
    if len(pictures) < len(found):
        raise InputError('two of the paths have the same names: give each its own run and --out')
    return pictures


def predict(model: Any, args: Namespace, chunk: list) -> Iterator[dict | InputError]:
    """Predict pictures, (name, path), and write their files; the record of each, or its error."""
    for (name, path), found in zip(chunk, model.predict(path for _, path in chunk), strict=True):
        yield found if isinstance(found, InputError) else write_prediction(found, name, path, args)


def report(errors: list[InputError]) -> None:
    """Say which files cannot be read, and end with exit code 1 if there are any."""
    if errors:
        print(f'{len(errors)} files cannot be read:', *errors, sep='\n  ', file=sys.stderr)
        sys.exit(1)


def write_prediction(found: Any, name: str, path: Path, args: Namespace) -> dict[str, Any]:
    """Write a prediction's files; its record."""
    png = f'{name}.png'
    write_png(args.out / 'masks' / png, found.mask)
    if found.cam is not None:
        write_png(args.out / 'cams' / png, (255 * found.cam.clip(0, 1)).round().astype('u1'))
    if args.draw:
        pictures = views(found, args.objects)
        write_png(args.out / 'pictures' / png, contact_sheet(
            [Row(list(pictures.values()), found.caption)],
            [Path(name).name, *list(pictures)[1:]], side=CELL))
        write_png(args.out / 'overlays' / png, found.overlay(args.objects))
    height, width = found.image.shape[:2]
    record = {'file': str(path), 'name': name, 'mask': f'masks/{png}',
              'width': width, 'height': height,
              'box': found.box and [round(value, 2) for value in found.box],
              'score': rounded(found.score), 'foreground': rounded(float(found.mask.mean())),
              'label': found.label, 'class': found.classes[0][0] if found.classes else None,
              'class_score': rounded(found.classes[0][1]) if found.classes else None,
              'classes': [[title, rounded(score)] for title, score in found.classes]}
    if args.objects == 'all' or args.format == 'coco':
        regions = find_regions(found.score_map, found.threshold, (height, width), args.objects)
        record['objects'] = list(map(describe, regions))
    return record


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def describe(region: Any) -> dict[str, Any]:
    """An object of a record; its mask is run-length encoded column by column, as in COCO."""
    changes = np.flatnonzero(np.diff(region.mask.ravel(order='F'), prepend=False))
    lengths = np.diff(changes, prepend=0, append=region.mask.size)
    return {'box': list(region.box), 'score': rounded(region.score),
            'segmentation': {'size': list(region.mask.shape), 'counts': lengths.tolist()}}


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


def write_result(path: Path, format: str, records: list[dict]) -> None:
    if format == 'jsonl':
        write_text(path, ''.join(json.dumps(record) + '\n' for record in records))
    elif format == 'coco':
        write_text(path, json.dumps(coco(records)))
    else:  # a row for each picture, or for each of its objects
        rows = [{**record, **found, **dict(zip(CORNERS, found['box'] or [None] * 4, strict=True))}
                for record in records for found in record.get('objects') or [record]]
        write_csv(path, COLUMNS, [[row[column] for column in COLUMNS] for row in rows])


def coco(records: list[dict]) -> dict[str, Any]:
    """COCO's format, an annotation for each of a record's `objects`; ids count from 1."""
    images, annotations, categories = [], [], {}
    for number, record in enumerate(records, 1):
        images.append({'id': number, 'file_name': record['name'], 'width': record['width'],
                       'height': record['height']})
        category = (record['label'] or 0) + 1
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


if __name__ == '__main__':
    run(main)
