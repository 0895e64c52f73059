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
    samples, labels = [], {name[:3]: label for label, name in enumerate(CLASSES)}
    for file in files_below(root / 'images'):
        if file.stem[:3] not in labels:
            raise InputError(f'{file} is not an image of this data set, as 0010001.png is')
        label = labels[file.stem[:3]]
        samples.append(Sample(file, f'{CLASSES[label]}/{file.name}', label,
                              root / 'segmentations' / f'{file.stem}_seg0.png'))
    return samples


def read_mask(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A mask of the data set -> (foreground, ignored), as `read_true_mask`."""
    with Image.open(path) as image:
        foreground = (np.isin(np.array(image), (1, 3)) if image.mode == 'P'
                      else np.array(image.convert('RGB'))[..., 1] > 127)
    if foreground.shape != size:
        raise InputError(f'{path} has another size than its image: get the archive again')
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
    with open_source(source, out, 'images') as root:
        print(f'{out}: ' + prepare(read_samples(root), CLASSES, out, args, read_mask))


if __name__ == '__main__':
    run(main)
