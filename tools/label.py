"""Label a folder of photographs: a box and a mask for each, by a network that label.sh has trained.

    python tools/label.py photos --seg labels/seg/model-4 --out labels

Reads <folder>/<class>/<name>.jpg, of classes that the network was trained with. Writes to --out:

    labels.json               COCO, with run-length encoded masks, for pycocotools and CVAT; Label
                              Studio imports the boxes once each `segmentation` is deleted
    masks/<class>/<name>.png  0 and 255
    overview.html             all photographs with mask and box, the least certain first

A mask is the largest connected region above the threshold, or above half of the maximum where
nothing exceeds it. The box bounds the mask; both are in pixels of the upright photograph. With
--objects all, every region of at least 1 % of the photograph is an annotation. The score is the IoU
of the boxes at the threshold - 0.1 and + 0.1. Unreadable files are listed at the end; exit code 1.
"""

import html
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ('', 'dataset')]

import cv2
import numpy as np
from prepare_folder import find_classes, find_images
from tqdm import tqdm

from spol import Spol, load_spol
from tools.predict import CELL, describe, report, write_result
from utils.arguments import Parser, fraction
from utils.drawing import draw_boxes, fit, outline
from utils.errors import InputError, run
from utils.files import write_bytes, write_png, write_text
from utils.inference import in_chunks
from utils.regions import find_regions
from utils.results import training_settings


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('folder', type=Path, help='the folder that has the class folders')
    add('--seg', type=Path, required=True, help='the checkpoint of the seg stage')
    add('--out', type=Path, required=True, help='the output folder')
    add('--threshold', type=fraction, help='a pixel is foreground where its probability exceeds '
        'this (default: as recorded beside the checkpoint, else 0.2)')
    add('--objects', choices=['largest', 'all'], default='largest', help='the annotated regions')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    model = load_spol(seg=args.seg, threshold=args.threshold, device=args.device)
    folders = find_classes(args.folder, least=1)
    classes = training_settings(args.seg).get('class_names', [])
    if unknown := [name for name in folders if name not in classes]:
        raise InputError(f'{args.seg} was not trained with the class folder {unknown[0]}: run '
                         'label.sh with another --out, or remove the folder')
    photographs = [(sample.name, sample.source) for sample in find_images(args.folder, folders)[0]]
    cv2.setNumThreads(0)  # each core has photographs of its own already
    records, errors = [], []
    work = in_chunks(partial(label, model, classes, args), photographs, model.chunk_size)
    for found in tqdm(work, total=len(photographs), unit='img', disable=None):
        (errors if isinstance(found, InputError) else records).append(found)
    write_result(args.out / 'labels.json', 'coco', records)
    write_overview(args.out / 'overview.html', records)
    print(f'labelled {len(records)} photographs at threshold {model.threshold:g}, in {args.out}')
    report(errors)


def label(model: Spol, classes: list[str], args: Namespace, chunk: list) -> Iterator:
    """Label photographs, (name, path), of `classes`; the record of each, or its InputError."""
    for (name, _), found in zip(chunk, model.predict(path for _, path in chunk), strict=True):
        if isinstance(found, InputError):
            yield found
            continue
        scores, size, class_name = found.score_map, found.image.shape[:2], name.partition('/')[0]
        regions = (find_regions(scores, found.threshold, size, args.objects)
                   or find_regions(scores, min(found.threshold, float(scores.max()) / 2), size))
        mask = np.any([np.zeros(size, bool), *(region.mask for region in regions)], axis=0)
        write_png(args.out / 'masks' / Path(name).with_suffix('.png'), mask)
        picture = outline(found.image, mask)
        for region in regions:
            picture = draw_boxes(picture, None, region.box)
        thumbnail = Path('overview', name).with_suffix('.jpg')
        write_bytes(args.out / thumbnail, cv2.imencode('.jpg', fit(picture, CELL)[..., ::-1])[1])
        yield {'name': name, 'width': size[1], 'height': size[0], 'class': class_name,
               'label': classes.index(class_name), 'objects': list(map(describe, regions)),
               'thumbnail': str(thumbnail), 'score': regions[0].score if regions else 0.0}


def write_overview(path: Path, records: list[dict]) -> None:
    page = ('<!DOCTYPE html><meta charset="utf-8"><title>Labels, the least certain first</title>\n'
            '<style>figure { display: inline-block; margin: 4px; width: 240px }</style>\n')
    for record in sorted(records, key=lambda record: record['score']):
        link = quote(record['thumbnail'], errors='surrogateescape')
        page += (f'<figure><img loading="lazy" src="{link}" alt=""><figcaption>'
                 f'{record["score"]:.2f} {html.escape(record["name"])}</figcaption></figure>\n')
    write_text(path, page)


if __name__ == '__main__':
    run(main)
