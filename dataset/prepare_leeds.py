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

import argparse
import os
import sys
from pathlib import Path
from zipfile import is_zipfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import numpy as np
from PIL import Image
from prepare_cub import find_root, open_source_folder
from prepare_folder import SUFFIXES, Sample, check_free, files_below, prepare

from network.download import download
from utils.arguments import Parser, fraction, nonnegative_int
from utils.data.images import DAMAGED, BadImageError, read_image
from utils.errors import InputError, run

URL = 'https://zenodo.org/records/7559420/files/leedsbutterfly_dataset_v1.1.zip'
PAGE = 'josiahwang.com/dataset/leedsbutterfly'
ROOT_NAME = 'leedsbutterfly'
SPECIES = ('Danaus_plexippus', 'Heliconius_charitonius', 'Heliconius_erato', 'Junonia_coenia',
           'Lycaena_phlaeas', 'Nymphalis_antiopa', 'Papilio_cresphontes', 'Pieris_rapae',
           'Vanessa_atalanta', 'Vanessa_cardui')
FOREGROUND = (1, 3)  # indices of the palette


def read_samples(root: Path) -> list[Sample]:
    """The photographs with their masks. Raises InputError for a name that is not the data set's,
    and where a mask is missing."""
    samples = []
    for file in files_below(root / 'images'):
        if file.suffix.lower() not in SUFFIXES:
            continue
        label = int(file.stem[:3]) - 1 if file.stem.isdecimal() and len(file.stem) == 7 else -1
        if not 0 <= label < len(SPECIES):
            raise InputError(f'{file} is not an image of this data set: expected names like '
                             '0010001.png, from 001 to 010')
        mask = root / 'segmentations' / f'{file.stem}_seg0.png'
        if not mask.is_file():
            raise InputError(f'no mask {mask}: get the archive again')
        name = f'{label + 1:03d}.{SPECIES[label]}/{file.name}'
        samples.append(Sample(file, name, label, mask))
    if not samples:
        raise InputError(f'no image in {root / "images"}: get the archive again')
    return samples


def read_mask(path: Path) -> np.ndarray:
    """A mask of the data set -> bool H x W. Raises BadImageError if it cannot be decoded."""
    colours = read_image(path)
    try:
        with Image.open(path) as image:
            if image.mode == 'P':
                return np.isin(np.array(image), FOREGROUND)
    except DAMAGED as error:
        raise BadImageError(f'{path} cannot be read as a mask: replace it') from error
    return colours[..., 1] > 127


def parse_args() -> argparse.Namespace:
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
    return parser.parse_args()


def fetch(archive: Path) -> Path:
    """The archive at `archive`, downloaded unless it is there. No checksum of the whole is
    published with the data set; those of its members are verified when it is unpacked."""
    try:
        download(URL, archive, 'md5:')
    except InputError as error:
        raise InputError(f'{error}, from {PAGE}, or give it as --source') from error
    if not is_zipfile(archive):
        archive.unlink()
        raise InputError(f'{URL} is not a zip archive: get it from {PAGE}, and give it as --source')
    return archive


def main() -> None:
    args = parse_args()
    out = args.out.resolve()
    check_free(out)
    source = (fetch(out.with_name('leedsbutterfly_dataset_v1.1.zip')) if args.download
              else Path(os.path.abspath(args.source)))
    with open_source_folder(source, out.with_name(f'.{out.name}.unpacked')) as (folder, place):
        root = find_root(folder, 'images', ROOT_NAME)
        print(f'{args.out}: ' + prepare(read_samples(root), out, args.val, args.seed,
                                        skip_bad=args.skip_bad, read_mask=read_mask,
                                        place=place))


if __name__ == '__main__':
    run(main)
