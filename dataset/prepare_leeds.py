"""Bring the Leeds Butterfly data set into the layout that the stages read.

    python dataset/prepare_leeds.py --download
    python dataset/prepare_leeds.py --source leedsbutterfly_dataset_v1.1.zip    # or unpacked

832 photographs of ten species with a mask each (Wang, Markert, Everingham, "Learning Models for
Object Recognition from Natural Language Descriptions", BMVC 2009; for learning and research:
josiahwang.com/dataset/leedsbutterfly). The archive has

    images/0010001.png              the first three digits are the species
    segmentations/0010001_seg0.png  indices 1 and 3 of the palette are foreground; in copies
                                    without a palette, what is green

There is no official split: --val and --seed are those of prepare_folder.py, as are the outputs.
"""

import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # also with PYTHONSAFEPATH=1

import utils.errors  # noqa: F401  # it says how to install what is missing below

# isort: split
import numpy as np
from PIL import Image
from preparation import add_source, check_free, download, open_source
from prepare_folder import Sample, add_split, files_below, prepare

from utils.arguments import Parser
from utils.errors import InputError, run

URL = 'https://zenodo.org/records/7559420/files/leedsbutterfly_dataset_v1.1.zip'
CLASSES = ('001.Danaus_plexippus', '002.Heliconius_charitonius', '003.Heliconius_erato',
           '004.Junonia_coenia', '005.Lycaena_phlaeas', '006.Nymphalis_antiopa',
           '007.Papilio_cresphontes', '008.Pieris_rapae', '009.Vanessa_atalanta',
           '010.Vanessa_cardui')


def read_samples(root: Path) -> list[Sample]:
    """The photographs with their masks. Raises InputError for a name that is not the data set's."""
    samples, numbers = [], [name[:3] for name in CLASSES]
    for file in files_below(root / 'images'):
        if file.stem[:3] not in numbers:
            raise InputError(f'{file} is not an image of this data set: expected names like '
                             '0010001.png, from 001 to 010')
        label = numbers.index(file.stem[:3])
        samples.append(Sample(file, f'{CLASSES[label]}/{file.name}', label,
                              root / 'segmentations' / f'{file.stem}_seg0.png'))
    return samples


def read_mask(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A mask of the data set -> (foreground, ignored), as `read_true_mask`."""
    with Image.open(path) as image:
        has_palette, values = image.mode == 'P', np.array(image)
        green = np.array(image.convert('RGB'))[..., 1]
    if green.shape != size:
        raise InputError(f'{path} has another size than its image: get the archive again')
    foreground = np.isin(values, (1, 3)) if has_palette else green > 127
    return foreground, np.zeros_like(foreground)


def main() -> None:
    parser = Parser(__doc__)
    add_source(parser)
    parser.add_argument('--out', type=Path, default=Path(__file__).resolve().parent / 'leeds',
                        help='folder to make')
    add_split(parser)
    args = parser.parse_args()
    out = args.out.resolve()
    check_free(out)
    source = (download(URL, out.with_name('leedsbutterfly_dataset_v1.1.zip')) if args.download
              else args.source.resolve())
    with open_source(source, out, 'images', 'leedsbutterfly') as root:
        print(f'{out}: ' + prepare(read_samples(root), CLASSES, out, args, read_mask))


if __name__ == '__main__':
    run(main)
