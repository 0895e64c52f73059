"""Label a folder of photographs: a box and a mask for each, by networks that label.sh has trained.

    python tools/label.py photos --cam labels/cam/model-12 --seg labels/seg/model-4 --out labels
    python tools/label.py more --cam ... --seg ... --out more-labels --threshold 0.7

Reads <folder>/<class>/<name>.jpg, of classes that the networks were trained with. Writes to --out:

    labels.json               COCO: categories, boxes (x, y, width, height) and run-length encoded
                              masks, for pycocotools and CVAT; Label Studio's converter imports the
                              boxes once the `segmentation` of each annotation is deleted
    masks/<class>/<name>.png  0 and 255
    overview.html             all photographs with mask and box, the least certain first
    maps/<class>/<name>.png   65535 x the probability of foreground, in the network's size
    cams/<class>/<name>.png   65535 x the fused CAM of the class

A mask is the largest connected region above the threshold, the box its bounding rectangle, both in
pixels of the upright photograph: an EXIF rotation is applied. Where nothing exceeds the threshold,
half of the maximum is taken. With --objects all, every region of at least 1 % of the photograph is
an annotation of its own. The score is the IoU of the boxes at the threshold - 0.1 and + 0.1.

The threshold, if it is not given, is the one that seg/test.py --threshold auto has recorded, else
the one at which masks and CAMs of the photographs correlate best.

The same command continues after an interruption, and labels photographs that have been added or
replaced. Files that cannot be read are reported at the end, and the exit code is then 1.
"""

import html
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ('', 'dataset')]

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import cv2
import numpy as np
from prepare_folder import find_classes, find_images
from tqdm import tqdm

from network.weights import digest
from spol import load_spol
from tools.predict import append_record, describe, read_records, write_result
from utils.arguments import Parser, fraction
from utils.drawing import draw_boxes, fit, outline
from utils.errors import InputError, run
from utils.files import keep_settings, source_of, write_bytes, write_png, write_text
from utils.images import read_grey, read_upright_image
from utils.inference import in_chunks, in_threads
from utils.regions import find_regions
from utils.results import training_settings
from utils.threshold import THRESHOLDS, agreement

THUMBNAIL = 240  # pixels


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('folder', type=Path, help='the folder that has the class folders')
    add('--cam', type=Path, required=True, help='the checkpoint of the cam stage')
    add('--seg', type=Path, required=True, help='the checkpoint of the seg stage')
    add('--out', type=Path, required=True, help='the output folder')
    add('--threshold', type=fraction, help='a pixel is foreground where its probability exceeds '
        'this (default: recorded or chosen, see above)')
    add('--objects', choices=['largest', 'all'], default='largest',
        help='the regions that become annotations')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    cv2.setNumThreads(0)  # each core has photographs of its own already
    classes = find_classes(args.folder, least=1)
    samples = find_images(args.folder, classes)[0]
    model = load_spol(cam=args.cam, seg=args.seg, device=args.device)
    folders = {sample.name.partition('/')[0] for sample in samples}
    if unknown := sorted(folders - set(model.class_names)):
        raise InputError(f'the networks were not trained with the class folder {unknown[0]}: run '
                         'label.sh with another --out, or remove the folder')
    keep_settings(args.out / 'settings.json',
                  {'cam': digest(args.cam), 'seg': digest(args.seg)})
    bad = write_maps(model, samples, args.out)
    samples = [sample for sample in samples if sample.name not in bad]
    if not samples:
        raise InputError(f'no photograph in {args.folder} can be read: check the folder')
    threshold, how = choose_threshold(args, samples)
    work = in_threads(partial(label, args, model.class_names, threshold), samples)
    records = list(tqdm(work, 'labelling', len(samples), unit='img', disable=None))
    write_result(args.out / 'labels.json', 'coco', records)
    write_overview(args.out, records, threshold)
    print(f'labelled {len(samples)} photographs at threshold {threshold} ({how})\n'
          f'labels:   {args.out / "labels.json"}\nmasks:    {args.out / "masks"}\n'
          f'overview: {args.out / "overview.html"}, the least certain first')
    if bad:
        print(f'{len(bad)} files cannot be read as images: {", ".join(bad)}', file=sys.stderr)
        sys.exit(1)


def class_of(sample: Any) -> str:
    return sample.name.split('/')[0]


def write_maps(model: Any, samples: list, out: Path) -> list[str]:
    """Write the maps that are not up to date; the names of the photographs that cannot be read."""
    log = out / 'maps.jsonl'  # the photographs whose maps are written
    known = read_records(log, {sample.name: sample.source for sample in samples})
    todo = [sample for sample in samples
            if sample.name not in known or not map_file(out, 'maps', sample.name).exists()]
    done = (result for name, members in groupby(todo, class_of) for result in in_chunks(
        partial(predict, model, name, out), members, model.chunk_size))
    bad = []
    for name, source in tqdm(done, 'predicting', len(todo), unit='img', disable=None):
        if source is None:
            bad.append(name)
        else:
            append_record(log, {'name': name, 'source': source})
    return bad


def predict(model: Any, class_name: str, out: Path, chunk: list
            ) -> Iterator[tuple[str, str | None]]:
    """Write the maps of photographs of a class; (name, state of the file, None if it cannot be
    read)."""
    states = [source_of(sample.source) for sample in chunk]
    found = model.predict((sample.source for sample in chunk), class_name)
    for sample, state, prediction in zip(chunk, states, found, strict=True):
        if isinstance(prediction, InputError):
            yield sample.name, None
            continue
        for kind, values in (('cams', prediction.cam_map), ('maps', prediction.score_map)):
            levels = (65535 * values.clip(0, 1)).round().astype(np.uint16)
            write_png(map_file(out, kind, sample.name), levels)
        yield sample.name, state


def map_file(out: Path, kind: str, name: str, suffix: str = '.png') -> Path:
    return out / kind / Path(name).with_suffix(suffix)


def read_map(out: Path, kind: str, name: str) -> np.ndarray:
    """float32 S x S in [0, 1]."""
    return read_grey(map_file(out, kind, name)).astype(np.float32) / 65535


def choose_threshold(args: Namespace, samples: list) -> tuple[float, str]:
    """(threshold, how it was chosen)."""
    recorded = training_settings(args.seg)
    if args.threshold is not None:
        return args.threshold, 'given'
    if 'threshold_rule' in recorded:
        return recorded['threshold'], f'recorded beside {args.seg.name}'
    total = sum(in_threads(lambda sample: agreement(read_map(args.out, 'maps', sample.name),
                                                    read_map(args.out, 'cams', sample.name)),
                           samples))
    return float(THRESHOLDS[total.argmax()]), 'chosen: masks and CAMs agree best'


def label(args: Namespace, class_names: list[str], threshold: float, sample: Any
          ) -> dict[str, Any]:
    """Write a photograph's mask and its picture in the overview; its record."""
    image, probability = read_upright_image(sample.source), read_map(args.out, 'maps', sample.name)
    size, half = image.shape[:2], float(probability.max()) / 2
    regions = (find_regions(probability, threshold, size, args.objects)
               or find_regions(probability, min(threshold, half), size))
    mask = np.any([np.zeros(size, bool), *(region.mask for region in regions)], axis=0)
    picture = outline(image, mask)
    for region in regions:
        picture = draw_boxes(picture, None, region.box)
    write_png(map_file(args.out, 'masks', sample.name), mask)
    thumbnail = cv2.cvtColor(fit(picture, THUMBNAIL), cv2.COLOR_RGB2BGR)
    write_bytes(map_file(args.out, 'overview', sample.name, '.jpg'),
                cv2.imencode('.jpg', thumbnail)[1])
    return {'name': sample.name, 'width': size[1], 'height': size[0], 'class': class_of(sample),
            'label': class_names.index(class_of(sample)), 'objects': list(map(describe, regions))}


def write_overview(out: Path, records: list[dict], threshold: float) -> None:
    rows = sorted((record['objects'][0]['score'] if record['objects'] else 0.0, record['name'])
                  for record in records)
    figures = ''
    for score, name in rows:
        link = quote(str(map_file(Path(), 'overview', name, '.jpg')), errors='surrogateescape')
        figures += (f'<figure><img loading="lazy" src="{link}" alt=""><figcaption>{score:.2f} '
                    f'{html.escape(name)}</figcaption></figure>\n')
    write_text(out / 'overview.html', PAGE.format(
        count=len(rows), threshold=threshold, figures=figures))


PAGE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Labels</title><style>
body {{ font: 13px sans-serif; display: flex; flex-wrap: wrap; gap: 8px }}
p {{ width: 100% }}  figure {{ margin: 0; width: 240px; overflow-wrap: anywhere }}
</style></head><body>
<p>{count} photographs at threshold {threshold}, the least certain first. Score: the IoU of the
boxes at the threshold - 0.1 and + 0.1.</p>
{figures}</body></html>
'''


if __name__ == '__main__':
    run(main)
