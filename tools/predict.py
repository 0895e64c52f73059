"""Localize, segment and classify the objects of your own pictures.

    python tools/predict.py photo.jpg                     with the checkpoints of demo.sh
    python tools/predict.py photos/ --draw                all pictures of a folder and below it
    python tools/predict.py photos/ --format coco         for pycocotools: boxes and masks
    python tools/predict.py photo.jpg --seg model-8       with your own: --cls, --cam, --seg

Writes to --out: predictions.jsonl, a line for each picture (file, box, class, score and the five
best classes), or predictions.json or .csv as --format says; masks/ and cams/ as PNG; with --draw
pictures/ and sheet.png of the first pictures. Boxes are x0, y0, x1, y1 in pixels of the upright
picture: an EXIF rotation is applied (COCO: x, y, width, height).

Files that cannot be read are reported at the end, and the exit code is then 1. A run that was
interrupted continues with the same command. Of several paths, each folder's outputs are in a folder
of its name.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import ROOT, Parser, fraction
from utils.errors import InputError, run
from utils.outputs.results import newest_checkpoint

SUFFIXES = {'.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff'}
STAGES = ('cls', 'cam', 'seg')
ON_SHEET = 24  # pictures
NAMED = 5      # bad files in the message
SETTINGS = ('cls', 'cam', 'seg', 'backbone', 'arch', 'threshold', 'draw')  # of a resumed run


def main():
    args = parse()
    import cv2
    import numpy as np
    from tqdm import tqdm

    from spol import load_spol
    from utils.data.images import read_image
    from utils.outputs.files import write_png
    from utils.outputs.predictions import PredictionWriter

    cv2.setNumThreads(0)  # each core has pictures of its own already
    model = load_spol(args.cam, args.seg, args.cls, backbone=args.backbone, arch=args.arch,
                      threshold=args.threshold, device=args.device)
    settings = {name: str(getattr(args, name)) for name in SETTINGS}
    records, done = PredictionWriter(args.out, args.format, settings), Done()
    todo = skip_done(pictures(args.paths, args.out), records, done)
    output = Output(args.out, args.draw, run_lengths=args.format == 'coco')
    predictions = model.inference.in_parts(lambda part: predict(model, part, output), todo)
    for record, png in tqdm(predictions, unit='img', disable=None):
        records.append(record)
        done.add(record, png)
    if args.draw and done.first:
        sheet = [read_image(args.out / 'pictures' / png) for png in done.first]
        write_png(args.out / 'sheet.png', np.vstack(sheet))
    path, bad = records.finish(), done.bad
    print(f'wrote {records.count} predictions to {path}')
    if bad:
        print(f'{len(bad)} files cannot be read as images: {", ".join(bad[:NAMED])}'
              + (', ...' if len(bad) > NAMED else ''), file=sys.stderr)
        sys.exit(1)


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('paths', nargs='+', type=Path, metavar='PHOTO_OR_FOLDER', help='pictures, or folders')
    for stage in STAGES:
        add(f'--{stage}', type=Path, help=f'a checkpoint of the {stage} stage (default, if none '
            "of the three is given: demo.sh's)")
    add('--backbone', help='backbone of cam and seg (default: what their run has recorded, else '
        'resnet50)')
    add('--arch', help='architecture of cls (default: what its run has recorded, else '
        'efficientnet_b7)')
    add('--threshold', type=fraction, help='a pixel is foreground where the map exceeds this')
    add('--out', type=Path, default=Path('predictions'), help='the output folder')
    add('--format', choices=['jsonl', 'coco', 'csv'], default='jsonl',
        help='format of the predictions')
    add('--draw', action='store_true', help='also draw each picture with its maps, mask and box')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
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
        for stage in STAGES:
            setattr(args, stage, demo_checkpoint(stage))
    return args


def demo_checkpoint(stage: str) -> Path:
    """The checkpoint of demo.sh's run of a stage."""
    folder = ROOT / f'cub200-{stage}' / 'out' / 'mini'
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise InputError(f'no checkpoint in {folder}: run demo.sh first, or give --cls, --cam or '
                         '--seg')
    return checkpoint


def pictures(paths: list[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    """(file, its name among the outputs) of all pictures, folders in alphabetical order. The output
    folder may be one of them: it is left out."""
    for path in paths:
        if path.is_file():
            yield path, Path(path.name)
            continue
        parent = Path(path.resolve().name if len(paths) > 1 else '')
        for folder, below, names in os.walk(path):
            below[:] = sorted(name for name in below
                              if Path(folder, name).resolve() != out.resolve())
            for name in sorted(names):
                file = Path(folder, name)
                if file.suffix.lower() in SUFFIXES:
                    yield file, parent / file.relative_to(path)


@dataclass
class Done:
    """What is reported at the end: the bad files, and the first drawings."""

    bad: list[str] = field(default_factory=list)
    first: list[str] = field(default_factory=list)

    def add(self, record: dict, png: str) -> None:
        if 'error' in record:
            self.bad.append(record['file'])
        elif len(self.first) < ON_SHEET:
            self.first.append(png)


def skip_done(pictures: Iterator[tuple[Path, Path]], records, done: Done
              ) -> Iterator[tuple[Path, Path]]:
    """The pictures after those that an interrupted run has done, which are added to `done`."""
    for record in records.done():
        file, name = next(pictures, (None, None))
        if str(file) != record['file']:
            raise InputError(f'{records.path} belongs to a run on other pictures: finish that run, '
                             'delete the file, or use another --out')
        done.add(record, f'{name}.png')
    yield from pictures


@dataclass(frozen=True)
class Output:
    """Where the files of predictions are written, and what is wanted of them."""

    folder: Path
    draw: bool
    run_lengths: bool

    def write(self, path: Path, png: str, prediction) -> dict:
        """Write the files of a prediction, named `png`; its record."""
        import numpy as np

        from utils.outputs.files import write_png
        from utils.outputs.predictions import run_lengths

        mask, cam = prediction.mask, prediction.cam
        write_png(self.folder / 'masks' / png, np.where(mask, np.uint8(255), np.uint8(0)))
        if cam is not None:
            write_png(self.folder / 'cams' / png, np.round(255 * cam.clip(0, 1)).astype('u1'))
        if self.draw:
            write_png(self.folder / 'pictures' / png, prediction.draw())
        record = describe(path, prediction)
        if self.run_lengths:
            record['segmentation'] = run_lengths(mask)
        return record


def predict(model, part: list[tuple[Path, Path]], output: Output) -> Iterator[tuple]:
    """Predict a part of the pictures and write its files; the record and file name of each."""
    for (path, name), found in zip(part, model.predict(path for path, _ in part), strict=True):
        if isinstance(found, InputError):
            yield {'file': str(path), 'error': 'cannot be read as an image'}, f'{name}.png'
        else:
            yield output.write(path, f'{name}.png', found), f'{name}.png'


def describe(path: Path, prediction) -> dict:
    """A picture's record, as `utils.outputs.predictions` has it."""
    height, width = prediction.image.shape[:2]
    return {'file': str(path), 'width': width, 'height': height,
            'box': prediction.box and [round(value, 2) for value in prediction.box],
            'label': prediction.label,
            'class': prediction.classes[0][0] if prediction.classes else None,
            'score': prediction.score and round(prediction.score, 6),
            'classes': [[name, round(score, 6)] for name, score in prediction.classes]}


if __name__ == '__main__':
    run(main)
