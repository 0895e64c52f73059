"""Localize, segment and classify the objects of your own pictures.

    python tools/predict.py photo.jpg                     with the checkpoints of demo.sh
    python tools/predict.py photos/ --draw                all pictures of a folder and below it
    python tools/predict.py photos/ --format coco         for pycocotools: boxes and masks
    python tools/predict.py photo.jpg --seg model-8       with your own: --cls, --cam, --seg

Writes to --out: predictions.jsonl, a line for each picture (file, mask file, box, class, score and
the five best classes), or predictions.json or .csv as --format says; masks/ and cams/ as PNG;
settings.json, the checkpoints, settings and versions in use; with --draw overlays/ (mask, box and
class at full size), pictures/ (all views) and sheet.png of the first pictures; with --save_maps
maps/ for tools/evaluate_maps.py. Boxes are x0, y0, x1, y1 in pixels of the upright picture: an EXIF
rotation is applied (COCO: x, y, width, height).

Links are followed; hidden files and folders are left out. Files that cannot be read are reported at
the end, and the exit code is then 1. A run that was interrupted continues with the same command. Of
several paths, each folder's outputs are in a folder of its name.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.predictions import PredictionWriter, part_in_box, run_lengths
from utils.arguments import Parser, add_checkpoints, demo_checkpoints
from utils.data.images import read_image
from utils.errors import InputError, run, warn
from utils.outputs.drawing import join_sheets
from utils.outputs.files import write_array, write_json, write_png
from utils.outputs.results import versions

# What both OpenCV and Pillow read, by the usual names.
SUFFIXES = {'.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.webp', '.avif', '.avifs', '.gif',
            '.bmp', '.tif', '.tiff', '.jp2', '.j2k', '.jpf', '.jpx', '.pbm', '.pgm', '.ppm', '.pnm'}
ON_SHEET = 24      # pictures
NAMED = 5          # bad files in the message
LONGEST_NAME = 255  # bytes; of most file systems
TINY, HUGE = 0.01, 0.9  # a mask's share of the picture, that makes it useless


def main():
    args = parse()
    found = Pictures(args.paths, args.out)
    todo = iter(found)
    first = next(todo, None)
    if first is None:
        raise InputError(f'no pictures in {", ".join(map(str, args.paths))}{found.left_out()}')
    import cv2
    from tqdm import tqdm

    from spol import load_spol

    cv2.setNumThreads(0)  # each core has pictures of its own already
    model = load_spol(args.cam, args.seg, args.cls, backbone=args.backbone, arch=args.arch,
                      threshold=args.threshold, device=args.device)
    print(model)
    settings = {**model.settings, 'draw': args.draw, 'save_maps': args.save_maps}
    records, done = PredictionWriter(args.out, args.format, settings), Done()
    write_json(args.out / 'settings.json', {**settings, 'versions': versions()})
    todo = skip_done(chain([first], todo), records, done)
    output = Output(args.out, args.draw, args.save_maps, run_lengths=args.format == 'coco')
    predictions = model.inference.in_chunks(lambda chunk: predict(model, chunk, output), todo)
    for record in tqdm(predictions, unit='img', disable=None):
        records.append(record)
        done.add(record)
    if args.draw and done.first:
        print(f'wrote {write_sheet(args.out, done.first)}')
    path = records.finish()
    print(f'wrote {records.count} predictions to {path}{found.left_out()}')
    done.report()


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('paths', nargs='+', type=Path, metavar='PHOTO_OR_FOLDER', help='pictures, or folders')
    add_checkpoints(parser)
    add('--out', type=Path, default=Path('predictions'), help='the output folder')
    add('--format', choices=['jsonl', 'coco', 'csv'], default='jsonl',
        help='format of the predictions')
    add('--draw', action='store_true', help='also draw each picture with its maps, mask and box')
    add('--save_maps', action='store_true',
        help='also write the score maps, for tools/evaluate_maps.py')
    args = parser.parse_args()
    for path in args.paths:
        if not path.exists():
            raise InputError(f'no picture at {path}: check the path')
        if path.resolve() == args.out.resolve():
            raise InputError(f'--out {args.out} is the folder of the pictures: choose another')
    names = [path.resolve().name if path.is_dir() else path.name for path in args.paths]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f'two of the paths are called {name}: predict them one after the '
                             'other, each with its own --out')
    if not (args.cls or args.cam or args.seg):
        vars(args).update(demo_checkpoints())
    return args


class Pictures:
    """The pictures of paths, as (file, its name among the outputs), folders in alphabetical order;
    counts what it leaves out. The output folder may be one of them: it is left out."""

    def __init__(self, paths: list[Path], out: Path):
        self.paths, self.out, self.counts = paths, out.resolve(), Counter()

    def __iter__(self) -> Iterator[tuple[Path, Path]]:
        for path in self.paths:
            if path.is_file():
                yield path, Path(path.name)
                continue
            parent = Path(path.resolve().name if len(self.paths) > 1 else '')
            for file in self._below(path):
                yield file, parent / file.relative_to(path)

    def _below(self, top: Path) -> Iterator[Path]:
        seen = {top.resolve(), self.out}
        for folder, below, names in os.walk(
                top, followlinks=True,
                onerror=lambda error: self.counts.update(['folders that cannot be read'])):
            below[:] = [name for name in sorted(below) if self._is_new(Path(folder, name), seen)]
            for name in sorted(names):
                if name.startswith('.'):
                    self.counts['hidden files'] += 1
                elif Path(name).suffix.lower() not in SUFFIXES:
                    self.counts['files that are not images by their names'] += 1
                else:
                    yield Path(folder, name)

    def _is_new(self, folder: Path, seen: set[Path]) -> bool:
        target = folder.resolve()
        if folder.name.startswith('.'):
            self.counts['hidden folders'] += 1
        elif target not in seen:
            seen.add(target)
            return True
        elif target != self.out:
            self.counts['links to folders that are there already'] += 1
        return False

    def left_out(self) -> str:
        """The end of a message."""
        counts = ', '.join(f'{count} {kind}' for kind, count in self.counts.items())
        return f' (left out: {counts})' if counts else ''


@dataclass
class Done:
    """What is reported at the end: the errors of bad files, how many masks are useless, and the
    first drawings by their pictures' names."""

    errors: list[str] = field(default_factory=list)
    first: dict[str, Path] = field(default_factory=dict)
    count: int = 0
    tiny: int = 0
    huge: int = 0

    def add(self, record: dict) -> None:
        if 'error' in record:
            self.errors.append(record['error'])
            return
        self.count += 1
        self.tiny += record['foreground'] < TINY
        self.huge += record['foreground'] > HUGE
        if len(self.first) < ON_SHEET:
            self.first[record['name']] = Path('pictures', *Path(record['mask']).parts[1:])

    def report(self) -> None:
        for bad, share in ((self.tiny, f'less than {TINY:.0%}'), (self.huge, f'over {HUGE:.0%}')):
            if 2 * bad > self.count:
                warn(f'{bad} of {self.count} masks cover {share} of their pictures: try another '
                     '--threshold, or train on pictures of this kind')
        if self.errors:
            print(f'{len(self.errors)} files cannot be read:', *self.errors[:NAMED],
                  *(['...'] if len(self.errors) > NAMED else []), sep='\n  ', file=sys.stderr)
            sys.exit(1)


def skip_done(pictures: Iterator[tuple[Path, Path]], records: PredictionWriter, done: Done
              ) -> Iterator[tuple[Path, Path]]:
    """The pictures after those that an interrupted run has done, which are added to `done`."""
    for record in records.done():
        file, _ = next(pictures, (None, None))
        if str(file) != record['file']:
            raise InputError(f'{records.path} belongs to a run on other pictures: finish that run, '
                             'delete the file, or use another --out')
        done.add(record)
    yield from pictures


@dataclass(frozen=True)
class Output:
    """Where the files of predictions are written, and what is wanted of them."""

    folder: Path
    draw: bool
    save_maps: bool
    run_lengths: bool

    def write(self, path: Path, name: Path, prediction) -> dict:
        """Write the files of a picture's prediction; its record, as `tools.predictions`
        has it."""
        stem, mask, cam = output_name(name), prediction.mask, prediction.cam
        png = f'{stem}.png'
        write_png(self.folder / 'masks' / png, mask)
        if cam is not None:
            write_png(self.folder / 'cams' / png, (255 * cam.clip(0, 1)).round().astype('u1'))
        if self.draw:
            write_png(self.folder / 'pictures' / png, prediction.draw())
            write_png(self.folder / 'overlays' / png, prediction.overlay())
        if self.save_maps:
            write_array(self.folder / 'maps' / f'{stem}.npy', prediction.score_map)
        record = {'file': str(path), 'name': name.as_posix(), 'mask': f'masks/{png}',
                  **describe(prediction)}
        if self.run_lengths:
            record['segmentation'] = run_lengths(part_in_box(mask, prediction.box))
        return record


def output_name(name: Path) -> Path:
    """The name of a picture's outputs, without their suffix; a hash where the picture's own name
    leaves no room for one."""
    if len(os.fsencode(name.name)) + len('.png') <= LONGEST_NAME:
        return name
    return name.with_name(sha256(os.fsencode(name.name)).hexdigest())


def predict(model, chunk: list[tuple[Path, Path]], output: Output) -> Iterator[dict]:
    """Predict some of the pictures and write their files; the record of each."""
    for (path, name), found in zip(chunk, model.predict(path for path, _ in chunk), strict=True):
        if isinstance(found, InputError):
            yield {'file': str(path), 'error': str(found)}
        else:
            yield output.write(path, name, found)


def describe(prediction) -> dict:
    """What a record says of the prediction itself."""
    height, width = prediction.image.shape[:2]
    return {'width': width, 'height': height,
            'box': prediction.box and [round(value, 2) for value in prediction.box],
            'foreground': round(float(prediction.mask.mean()), 6), 'label': prediction.label,
            'class': prediction.classes[0][0] if prediction.classes else None,
            'score': prediction.score and round(prediction.score, 6),
            'classes': [[name, round(score, 6)] for name, score in prediction.classes]}


def write_sheet(folder: Path, pictures: dict[str, Path]) -> Path:
    path = folder / 'sheet.png'
    write_png(path, join_sheets({name: read_image(folder / picture)
                                 for name, picture in pictures.items()}))
    return path


if __name__ == '__main__':
    run(main)
