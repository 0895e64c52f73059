"""Label a folder of photographs: a box and a mask for each, by networks that label.sh has trained.

    python tools/label.py photos --cam labels/cam/model-12 --seg labels/seg/model-4 --out labels
    python tools/label.py more --cam ... --seg ... --out more-labels --threshold 0.7

Reads <folder>/<class>/<name>.jpg, with the class folders that the networks were trained with (or
some of them), and writes to --out:

    labels.json               COCO: categories, boxes (x, y, width, height) and run-length encoded
                              masks, for pycocotools and CVAT; file names start from the folder.
                              Label Studio's converter knows no run-length encoding: delete the
                              `segmentation` of each annotation, and it imports the boxes
    masks/<class>/<name>.png  0 and 255
    overview.html             all photographs with mask and box, the least certain first
    maps/<class>/<name>.png   65535 x the probability of foreground, in the network's size
    cams/<class>/<name>.png   65535 x the fused CAM of the class

A mask is the largest connected region above the threshold, the box its bounding rectangle, both in
pixels of the upright photograph: an EXIF rotation is applied. Where nothing exceeds the threshold,
half of the maximum is taken. With --objects all, every region of at least 1 % of the photograph is
an annotation of its own.

The threshold, if it is not given, is the one that seg/test.py --threshold auto has recorded, else
it is chosen in the same way on the photographs themselves: where masks and CAMs correlate best. The
score of an annotation is the IoU of the boxes at the threshold - 0.1 and + 0.1.

After an interruption the same command continues, and photographs that have been added or replaced
are labelled with the same networks; other maps are kept. Files that cannot be read are reported at
the end, and the exit code is then 1.
"""

import html
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
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
from tools.predict import Records, describe, write_result
from utils.arguments import Parser, fraction
from utils.boxes import find_regions
from utils.drawing import draw_boxes, outline
from utils.errors import InputError, run
from utils.files import read_json, source_of, write_bytes, write_json, write_png, write_text
from utils.images import read_grey, read_upright_image
from utils.inference import in_chunks, in_threads
from utils.results import recorded_class_names, training_settings
from utils.threshold import THRESHOLDS, agreement

THUMBNAIL = 240  # pixels
NAMED = 5        # bad files in the message


def main() -> None:
    args = parse()
    cv2.setNumThreads(0)  # each core has photographs of its own already
    samples = find_images(args.folder, find_classes(args.folder, least=1))[0]
    model = load_spol(cam=args.cam, seg=args.seg, device=args.device)
    samples = with_labels(samples, args.cam, model)
    check_networks(args)
    bad = write_maps(model, samples, args.out)
    samples = [sample for sample in samples if sample.name not in set(bad)]
    if not samples:
        raise InputError(f'no photograph in {args.folder} can be read: check the folder')
    threshold, how = choose_threshold(args, samples)
    work = in_threads(partial(label, out=args.out, threshold=threshold, objects=args.objects),
                      samples)
    with TemporaryDirectory() as folder:  # masks are not held in memory
        records = Records(Path(folder) / 'records', {})
        for record in tqdm(work, 'labelling', len(samples), unit='img', disable=None):
            records.append(record)
        write_result(args.out / 'labels.json', 'coco', records.__iter__)
        write_overview(args.out, records, threshold)
        empty = sum(not record['objects'] for record in records)
    print(f'labelled {len(samples)} photographs at threshold {threshold} ({how})\n'
          f'labels:   {args.out / "labels.json"}\nmasks:    {args.out / "masks"}\n'
          f'overview: {args.out / "overview.html"}, the least certain first')
    if empty:
        print(f'{empty} photographs have no label: the probability is 0 everywhere')
    if bad:
        print(f'{len(bad)} files cannot be read as images: {", ".join(bad[:NAMED])}'
              + (', ...' if len(bad) > NAMED else ''), file=sys.stderr)
        sys.exit(1)


def parse() -> Namespace:
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
    for path in (args.cam, args.seg):
        if not path.is_file():
            raise InputError(f'no checkpoint at {path}: run label.sh first, or check the path')
    return args


def with_labels(samples: list, checkpoint: Path, model: Any) -> list:
    """The samples with the labels that their class folders had in the training."""
    names = recorded_class_names(checkpoint)
    if len(names) < len(model.class_names):
        raise InputError(f'the class folders that {checkpoint} was trained with are not known: '
                         f'put its {checkpoint.name}.json beside it')
    folders = [sample.name.split('/')[0] for sample in samples]
    if unknown := set(folders) - set(names):
        raise InputError(f'the networks were not trained with the class folder {min(unknown)}: run '
                         'label.sh with another --out, or remove the folder')
    return [sample._replace(label=names.index(folder))
            for sample, folder in zip(samples, folders, strict=True)]


def check_networks(args: Namespace) -> None:
    """Refuse an output folder of other networks; one of photographs elsewhere is continued."""
    path, folder = args.out / 'settings.json', str(args.folder.resolve())
    recorded, digests = read_json(path), {'cam': digest(args.cam), 'seg': digest(args.seg)}
    if recorded and any(recorded.get(stage) != digests[stage] for stage in digests):
        raise InputError(f'{args.out} has the labels of other networks, and is kept as it is: give '
                         'another --out, or the networks that it was made with')
    if recorded.get('folder', folder) != folder:
        print(f'{args.out} was made of {recorded["folder"]}: what has changed in {folder} is made '
              'anew')
    write_json(path, {'folder': folder, **digests})


# ---------------------------------------------------------------- maps


def write_maps(model: Any, samples: list, out: Path) -> list[str]:
    """Write the maps that are not up to date; the names of the photographs that cannot be read.
    maps.jsonl records the state of each photograph whose maps were written."""
    log, todo = Records(out / 'maps.jsonl', {}), {}  # by label, which a batch has in common
    known = {record['name']: record['source'] for record in log}
    for sample in samples:
        if known.get(sample.name) != source_of(sample.source) or not (
                map_file(out, 'maps', sample.name).exists()):
            todo.setdefault(sample.label, []).append(sample)
    replaced = sum(sample.name in known for members in todo.values() for sample in members)
    if replaced:
        print(f'{replaced} photographs were replaced since they were labelled: made anew')
    done = (result for members in todo.values() for result in in_chunks(
        partial(predict, model, out), members, model.chunk_size))
    bad = []
    for name, source in tqdm(done, 'predicting', sum(map(len, todo.values())), unit='img',
                             disable=None):
        if source is None:
            bad.append(name)
        else:
            log.append({'name': name, 'source': source})
    return bad


def predict(model: Any, out: Path, chunk: list) -> Iterator[tuple[str, str | None]]:
    """Write the maps of photographs of a class; (name, state of the file, None if it cannot be
    read)."""
    states = [source_of(sample.source) for sample in chunk]
    found = model.predict((sample.source for sample in chunk), chunk[0].label)
    for sample, state, prediction in zip(chunk, states, found, strict=True):
        if isinstance(prediction, InputError):
            yield sample.name, None
            continue
        for kind, values in (('cams', prediction.cam_map), ('maps', prediction.score_map)):
            levels = (65535 * values.clip(0, 1)).round().astype(np.uint16)
            write_png(map_file(out, kind, sample.name), levels)
        yield sample.name, state


def map_file(out: Path, kind: str, name: str) -> Path:
    return out / kind / Path(name).with_suffix('.png')


def read_map(out: Path, kind: str, name: str) -> np.ndarray:
    """float32 S x S in [0, 1]."""
    return read_grey(map_file(out, kind, name)).astype(np.float32) / 65535


def choose_threshold(args: Namespace, samples: list) -> tuple[float, str]:
    """(threshold, how it was chosen)."""
    recorded = training_settings(args.seg)
    if args.threshold is not None:
        return args.threshold, 'given'
    if 'threshold_rule' in recorded and 'threshold' in recorded:
        return recorded['threshold'], f'recorded beside {args.seg.name}'
    total = sum(in_threads(lambda sample: agreement(read_map(args.out, 'maps', sample.name),
                                                    read_map(args.out, 'cams', sample.name)),
                           samples))
    return float(THRESHOLDS[total.argmax()]), 'chosen: masks and CAMs agree best'


# ---------------------------------------------------------------- labels


def label(sample: Any, out: Path, threshold: float, objects: str) -> dict[str, Any]:
    """Write a photograph's mask and its picture in the overview; its record."""
    image, probability = read_upright_image(sample.source), read_map(out, 'maps', sample.name)
    size = image.shape[:2]
    regions = find_regions(probability, threshold, size, objects)
    if not regions:
        regions = find_regions(probability, min(threshold, float(probability.max()) / 2), size)
    mask = np.zeros(size, bool)
    for region in regions:
        mask |= region.mask
    write_png(map_file(out, 'masks', sample.name), mask)
    write_thumbnail(thumbnail_file(out, sample.name), image, mask, [r.box for r in regions])
    return {'name': sample.name, 'width': size[1], 'height': size[0], 'label': sample.label,
            'class': sample.name.split('/')[0], 'objects': list(map(describe, regions))}


def thumbnail_file(out: Path, name: str) -> Path:
    return out / 'overview' / Path(name).with_suffix('.jpg')


def write_thumbnail(path: Path, image: np.ndarray, mask: np.ndarray, boxes: list[tuple]) -> None:
    scale = min(1, THUMBNAIL / max(image.shape[:2]))
    size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(mask.astype('u1'), size, interpolation=cv2.INTER_NEAREST) > 0
    picture = outline(small, inside)
    for box in boxes:
        picture = draw_boxes(picture, None, tuple(scale * side for side in box))
    write_bytes(path, cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1])


def write_overview(out: Path, records: Records, threshold: float) -> None:
    """overview.html, with relative links."""
    rows = sorted((record['objects'][0]['score'] if record['objects'] else 0.0, record['name'])
                  for record in records)
    figures = []
    for score, name in rows:
        link = quote(thumbnail_file(Path(), name).as_posix(), errors='surrogateescape')
        figures.append(f'<figure><img loading="lazy" src="{link}" alt=""><figcaption>{score:.2f} '
                       f'{html.escape(name)}</figcaption></figure>')
    write_text(out / 'overview.html', PAGE.format(
        count=len(figures), threshold=threshold, figures='\n'.join(figures)))


PAGE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Labels</title><style>
body {{ font: 13px sans-serif; display: flex; flex-wrap: wrap; gap: 8px }}
p {{ width: 100% }}  figure {{ margin: 0; width: 240px; overflow-wrap: anywhere }}
</style></head><body>
<p>{count} photographs at threshold {threshold}, the least certain first. Score: the IoU of the
boxes at the threshold - 0.1 and + 0.1.</p>
{figures}
</body></html>
'''


if __name__ == '__main__':
    run(main)
