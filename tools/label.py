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
    maps/<class>/<name>.png   255 x the probability of foreground, in the network's size
    cams/<class>/<name>.png   255 x the fused CAM of the class

A mask is the largest connected region above the threshold, the box its bounding rectangle, both in
pixels of the upright photograph: an EXIF rotation is applied.

The threshold, if it is not given, is that at which masks and CAMs agree best: where the correlation
of a photograph's mask with its CAM, in the mean over all photographs, is largest. The certainty
(the `score` of an annotation) is the IoU of the boxes at the threshold - 0.1 and + 0.1.

After an interruption the same command continues, and photographs that have been added are labelled
with the same networks; maps that exist are kept. Files that cannot be read are reported at the end,
and the exit code is then 1.
"""

import html
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ('', 'dataset')]

from tools.predictions import coco, run_lengths
from utils.arguments import Parser, fraction
from utils.data.images import read_binary_mask, read_grey, read_upright_image, resize
from utils.errors import InputError, run
from utils.localization.boxes import iou, largest_box
from utils.localization.threshold import agreement, choose_threshold
from utils.outputs.drawing import draw_boxes, outline
from utils.outputs.files import atomic_write, keep_settings, write_bytes, write_png, write_text
from utils.stages.run_settings import recorded_class_names

THUMBNAIL = 240  # pixels
NAMED = 5        # bad files in the message
SHIFT, HIGHEST = 0.1, 0.99  # of the thresholds for the certainty


def main():
    args = parse()
    import cv2
    from prepare_folder import find_classes, find_images
    from tqdm import tqdm

    from network.download import digest
    from spol import load_spol

    cv2.setNumThreads(0)  # each core has photographs of its own already
    samples = find_images(args.folder, find_classes(args.folder, least=1))[0]
    model = load_spol(args.cam, args.seg, device=args.device)
    samples = with_labels(samples, known_labels(args.cam, model))
    keep_settings(args.out / 'settings.json', {
        'folder': str(args.folder.resolve()), 'cam': digest(args.cam), 'seg': digest(args.seg)})
    bad = write_maps(model, samples, args.out)
    samples = [sample for sample in samples if sample.name not in set(bad)]
    if not samples:
        raise InputError(f'no photograph in {args.folder} can be read: check the folder')
    threshold = args.threshold
    if threshold is None:
        threshold = choose_threshold(agreement(*read_maps(args.out, sample)) for sample in samples)
    with ThreadPoolExecutor(model.inference.threads) as pool:
        work = pool.map(lambda sample: label(sample, args.out, threshold), samples)
        records = list(tqdm(work, 'labelling', len(samples), unit='img', disable=None))
    write_coco(args.out, records)
    write_overview(args.out, records, threshold)
    report(args, len(records), threshold, bad)


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('folder', type=Path, help='the folder that has the class folders')
    add('--cam', type=Path, required=True, help='the checkpoint of the cam stage')
    add('--seg', type=Path, required=True, help='the checkpoint of the seg stage')
    add('--out', type=Path, required=True, help='the output folder')
    add('--threshold', type=fraction, help='a pixel is foreground where its probability exceeds '
        'this (default: chosen, see above)')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    for path in (args.cam, args.seg):
        if not path.is_file():
            raise InputError(f'no checkpoint at {path}: run label.sh first, or check the path')
    return args


def known_labels(checkpoint: Path, model) -> dict[str, int]:
    """The label of each class folder that the networks were trained with."""
    names = recorded_class_names(checkpoint)
    if len(names) < len(model.class_names):
        raise InputError(f'the class folders that {checkpoint} was trained with are not known: '
                         f'put its {checkpoint.name}.json beside it')
    return {name: label for label, name in names.items()}


def with_labels(samples: list, labels: dict[str, int]) -> list:
    """The samples with the labels of the training."""
    folders = {sample: sample.name.split('/')[0] for sample in samples}
    if unknown := set(folders.values()) - labels.keys():
        raise InputError(f'the networks were not trained with the class folder {min(unknown)}: run '
                         'label.sh with another --out, or remove the folder')
    return [sample._replace(label=labels[folder]) for sample, folder in folders.items()]


# ---------------------------------------------------------------- maps


def write_maps(model, samples: list, out: Path) -> list[str]:
    """Write the maps that do not exist; the names of the photographs that cannot be read."""
    from tqdm import tqdm

    todo: dict[int, list] = {}  # by label, which a batch has in common
    for sample in samples:
        if not map_file(out, 'maps', sample.name).exists():
            todo.setdefault(sample.label, []).append(sample)
    done = (result for label, members in todo.items() for result in model.inference.in_chunks(
        lambda chunk, label=label: predict(model, chunk, label, out), members))
    count = sum(map(len, todo.values()))
    return [name for name in tqdm(done, 'predicting', count, unit='img', disable=None) if name]


def predict(model, chunk: list, label: int, out: Path) -> Iterator[str | None]:
    """Write the maps of photographs of a class; for each None, or its name if it cannot be read."""
    found = model.predict((sample.source for sample in chunk), label)
    for sample, prediction in zip(chunk, found, strict=True):
        if isinstance(prediction, InputError):
            yield sample.name
            continue
        # The one whose existence is looked for is written last.
        for kind, values in (('cams', prediction.cam_map), ('maps', prediction.score_map)):
            write_png(map_file(out, kind, sample.name), (255 * values).round().astype('u1'))
        yield None


def map_file(out: Path, kind: str, name: str) -> Path:
    return out / kind / Path(name).with_suffix('.png')


def read_maps(out: Path, sample):
    """(probability of foreground, CAM), float32 S x S in [0, 1]."""
    return [read_grey(map_file(out, kind, sample.name)).astype('f4') / 255
            for kind in ('maps', 'cams')]


# ---------------------------------------------------------------- labels


def label(sample, out: Path, threshold: float) -> dict:
    """Write a photograph's mask and its picture in the overview; its record."""
    image, (probability, _) = read_upright_image(sample.source), read_maps(out, sample)
    mask, box = main_region(probability, threshold, image.shape[:2])
    write_png(map_file(out, 'masks', sample.name), mask)
    write_thumbnail(thumbnail_file(out, sample.name), image, mask, box)
    return {'file': sample.name, 'width': image.shape[1], 'height': image.shape[0],
            'box': [float(side) for side in box], 'label': sample.label,
            'class': sample.name.split('/')[0],
            'score': round(certainty(probability, threshold), 4)}


def certainty(probability, threshold: float) -> float:
    """How little the box depends on the threshold, in [0, 1]; 0 where there is none."""
    boxes = [largest_box(probability, min(max(threshold + shift, 0), HIGHEST))
             for shift in (-SHIFT, SHIFT)]
    return 0.0 if None in boxes else float(iou(*boxes))


def main_region(probability, threshold: float, size: tuple[int, int]):
    """(mask, box): the largest connected region above the threshold, bool H x W, and its bounding
    rectangle x0, y0, x1, y1. Where nothing exceeds the threshold: above half of the maximum.

    `probability`: float32 S x S; `size` = (H, W) of the photograph.
    """
    import cv2

    probability = resize(probability, size)
    highest = float(probability.max())
    foreground = probability > (threshold if highest > threshold else highest / 2)
    _, regions, statistics, _ = cv2.connectedComponentsWithStats(foreground.astype('u1'))
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax()) if len(statistics) > 1 else 0
    x, y, width, height = statistics[largest, :4].tolist()
    return regions == largest, (x, y, x + width, y + height)


def thumbnail_file(out: Path, name: str) -> Path:
    return out / 'overview' / Path(name).with_suffix('.jpg')


def write_thumbnail(path: Path, image, mask, box: tuple[int, int, int, int]) -> None:
    import cv2

    scale = min(1, THUMBNAIL / max(image.shape[:2]))
    size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(mask.astype('u1'), size, interpolation=cv2.INTER_NEAREST) > 0
    picture = draw_boxes(outline(small, inside), None, tuple(scale * side for side in box))
    write_bytes(path, cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1])


# ---------------------------------------------------------------- files of the whole


def write_coco(out: Path, records: list[dict]) -> None:
    """labels.json. Masks are read again, so that only one is held in memory."""
    def with_masks() -> Iterator[dict]:
        for record in records:
            mask = read_binary_mask(map_file(out, 'masks', record['file']))
            yield {**record, 'segmentation': run_lengths(mask)}

    def write(file) -> None:
        for text in coco(with_masks):
            file.write(text.encode(errors='surrogateescape'))

    atomic_write(out / 'labels.json', write)


def write_overview(out: Path, records: list[dict], threshold: float) -> None:
    """overview.html, with relative links alone."""
    figures = []
    for record in sorted(records, key=lambda record: (record['score'], record['file'])):
        link = thumbnail_file(Path(), record['file']).as_posix()
        figures.append(
            f'<figure><img loading="lazy" src="{quote(link, errors="surrogateescape")}" alt="">'
            f'<figcaption>{record["score"]:.2f} {html.escape(record["file"])}</figcaption>'
            '</figure>')
    write_text(out / 'overview.html', PAGE.format(
        count=len(records), threshold=threshold, figures='\n'.join(figures)))


PAGE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Labels</title><style>
body {{ font: 13px sans-serif; display: flex; flex-wrap: wrap; gap: 8px }}
p {{ width: 100% }}  figure {{ margin: 0; width: 240px; overflow-wrap: anywhere }}
</style></head><body>
<p>{count} photographs at threshold {threshold}, the least certain first. Certainty: the IoU of the
boxes at the threshold - 0.1 and + 0.1.</p>
{figures}
</body></html>
'''


def report(args, count: int, threshold: float, bad: list[str]) -> None:
    how = 'given' if args.threshold is not None else 'chosen: masks and CAMs agree best'
    print(f'labelled {count} photographs at threshold {threshold} ({how})\n'
          f'labels:   {args.out / "labels.json"}\nmasks:    {args.out / "masks"}\n'
          f'overview: {args.out / "overview.html"}, the least certain first')
    if bad:
        print(f'{len(bad)} files cannot be read as images: {", ".join(bad[:NAMED])}'
              + (', ...' if len(bad) > NAMED else ''), file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    run(main)
