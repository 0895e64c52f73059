"""Box, segment and name the objects of your own pictures.

    python tools/predict.py photo.jpg                     with the checkpoints of demo.sh
    python tools/predict.py photos/ --out predictions     all pictures of a folder and below it
    python tools/predict.py photo.jpg --seg model-8       with your own: --cls, --cam, --seg

Writes to --out: predictions.jsonl, a line for each picture (file, box, class, score and the five
best classes), masks/ as PNG, and with --draw pictures/. Boxes are x0, y0, x1, y1 in pixels of the
upright picture: an EXIF rotation is applied. Files that cannot be read are reported at the end, and
the exit code is then 1.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import ROOT, Parser, fraction
from utils.errors import InputError, run

SUFFIXES = {'.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff'}
STAGES = ('cls', 'cam', 'seg')


def main():
    args = parse()
    import numpy as np
    from tqdm import tqdm

    from network import load_spol
    from utils.data.images import BadImageError
    from utils.outputs.files import write_png, write_text

    model = load_spol(args.cam, args.seg, args.cls, backbone=args.backbone, arch=args.arch,
                      threshold=args.threshold, device=args.device)
    lines, bad = [], []
    for path, name in tqdm(list(pictures(args.paths)), unit='img', disable=None):
        try:
            prediction = model(path)
        except BadImageError:
            bad.append(path)
            continue
        lines.append(json.dumps(describe(path, prediction)) + '\n')
        mask = np.where(prediction.mask[..., None], np.uint8([255] * 3), np.uint8(0))
        write_png(args.out / 'masks' / f'{name}.png', mask)
        if args.draw:
            write_png(args.out / 'pictures' / f'{name}.png', prediction.draw())
    write_text(args.out / 'predictions.jsonl', ''.join(lines))
    print(f'wrote {len(lines)} predictions to {args.out / "predictions.jsonl"}')
    if bad:
        print(f'{len(bad)} files cannot be read as images: {", ".join(map(str, bad[:5]))}'
              + (', ...' if len(bad) > 5 else ''), file=sys.stderr)
        sys.exit(1)


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('paths', nargs='+', type=Path, metavar='PHOTO_OR_FOLDER', help='pictures, or folders')
    for stage in STAGES:
        add(f'--{stage}', type=Path, help=f'a checkpoint of the {stage} stage (default, if none '
            "of the three is given: demo.sh's)")
    add('--backbone', help='of cam and seg (default: what their run has recorded, else resnet50)')
    add('--arch', help='of cls (default: what its run has recorded, else efficientnet_b7)')
    add('--threshold', type=fraction, help='a pixel is foreground where the map exceeds this')
    add('--out', type=Path, default=Path('predictions'), help='the output folder')
    add('--draw', action='store_true', help='also draw each picture with its maps, mask and box')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    if not (args.cls or args.cam or args.seg):
        for stage in STAGES:
            setattr(args, stage, newest_checkpoint(ROOT / f'cub200-{stage}' / 'out' / 'mini'))
    return args


def newest_checkpoint(folder: Path) -> Path:
    """The last model-N of a run."""
    models = [path for path in folder.glob('model-*') if path.name[6:].isdigit()]
    if not models:
        raise InputError(f'no checkpoint in {folder}: run demo.sh first, or give --cls, --cam or '
                         '--seg')
    return max(models, key=lambda path: int(path.name[6:]))


def pictures(paths: list[Path]):
    """(file, its name without suffix, relative to the folder that was given) of all pictures."""
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob('*')):
                if file.suffix.lower() in SUFFIXES:
                    yield file, file.relative_to(path).with_suffix('')
        elif path.is_file():
            yield path, path.stem
        else:
            raise InputError(f'no picture at {path}: check the path')


def describe(path: Path, prediction) -> dict:
    """A picture's line of predictions.jsonl."""
    height, width = prediction.image.shape[:2]
    return {'file': str(path), 'width': width, 'height': height,
            'box': prediction.box and [round(value, 2) for value in prediction.box],
            'class': prediction.classes[0][0] if prediction.classes else None,
            'score': prediction.score,
            'classes': [[name, round(score, 6)] for name, score in prediction.classes]}


if __name__ == '__main__':
    run(main)
