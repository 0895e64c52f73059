"""Bring the Leeds Butterfly data set into the layout that the stages read.

    python dataset/prepare_leeds.py --download
    python dataset/prepare_leeds.py --source leedsbutterfly_dataset_v1.1.zip    the official archive
    python dataset/prepare_leeds.py --source leedsbutterfly                     or unpacked

832 photographs of ten species with a mask each (Wang, Markert, Everingham, "Learning Models for
Object Recognition from Natural Language Descriptions", BMVC 2009; for learning and research:
josiahwang.com/dataset/leedsbutterfly). The archive has

    images/0010001.png              the first three digits are the species
    segmentations/0010001_seg0.png  indices 1 and 3 of the palette are foreground; in copies
                                    without a palette, what is green

Images may have another suffix. The data set has no official split: --val and --seed are those of
prepare_folder.py, which also says what is written.
"""

import os
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import numpy as np
from PIL import Image
from preparation import check_free, download, find_root, is_hidden, open_source
from prepare_folder import SUFFIXES, Sample, prepare

from utils.arguments import Parser, fraction, nonnegative_int
from utils.errors import InputError, run
from utils.images import DAMAGED

URL = 'https://zenodo.org/records/7559420/files/leedsbutterfly_dataset_v1.1.zip'
ROOT_NAME = 'leedsbutterfly'
SPECIES = ('Danaus_plexippus', 'Heliconius_charitonius', 'Heliconius_erato', 'Junonia_coenia',
           'Lycaena_phlaeas', 'Nymphalis_antiopa', 'Papilio_cresphontes', 'Pieris_rapae',
           'Vanessa_atalanta', 'Vanessa_cardui')


def read_samples(root: Path) -> list[Sample]:
    """The photographs with their masks. Raises InputError for a name that is not the data set's."""
    samples = []
    for file in sorted((root / 'images').iterdir()):
        if is_hidden(file.name) or file.suffix.lower() not in SUFFIXES:
            continue
        label = int(file.stem[:3]) - 1 if file.stem.isdecimal() and len(file.stem) == 7 else -1
        if not 0 <= label < len(SPECIES):
            raise InputError(f'{file} is not an image of this data set: expected names like '
                             '0010001.png, from 001 to 010')
        name = f'{label + 1:03d}.{SPECIES[label]}/{file.name}'
        samples.append(Sample(file, name, label, root / 'segmentations' / f'{file.stem}_seg0.png'))
    if not samples:
        raise InputError(f'no image in {root / "images"}: get the archive again')
    return samples


def read_mask(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A mask of the data set -> (foreground, ignored), as `read_true_mask`."""
    try:
        with Image.open(path) as image:
            has_palette, values = image.mode == 'P', np.array(image)
            green = np.array(image.convert('RGB'))[..., 1]
    except DAMAGED as error:
        raise InputError(f'{path} is missing or damaged: get the archive again') from error
    if values.shape[:2] != size:
        raise InputError(f'{path} has another size than its image: get the archive again')
    foreground = np.isin(values, (1, 3)) if has_palette else green > 127
    return foreground, np.zeros_like(foreground)


def main() -> None:
    parser = Parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--download', action='store_true', help='fetch the archive, beside --out')
    source.add_argument('--source', type=Path, help='the archive, or the unpacked folder')
    add = parser.add_argument
    add('--out', type=Path, default=Path(__file__).resolve().parent / 'leeds',
        help='folder to make')
    add('--val', type=fraction, default=0.3, help='the share of each species that is val')
    add('--seed', type=nonnegative_int, default=0, help='seed of the split')
    add('--skip_bad', action='store_true', help='leave out images that something is wrong with')
    args = parser.parse_args()
    out = args.out.resolve()
    check_free(out)
    source = (download(URL, out.with_name('leedsbutterfly_dataset_v1.1.zip')) if args.download
              else Path(os.path.abspath(args.source)))
    with open_source(source, out) as (folder, place):
        samples = read_samples(find_root(folder, 'images', ROOT_NAME))
        print(f'{args.out}: ' + prepare(samples, SPECIES, out, args.val, args.seed, place=place,
                                        skip_bad=args.skip_bad, read_mask=read_mask))


if __name__ == '__main__':
    run(main)
