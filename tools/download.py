"""Fetch the authors' segmentation checkpoints from Google Drive.

    python tools/download.py cub200-seg      to cub200-seg/out/model-8
    python tools/download.py imagenet-seg    to imagenet-seg/out/model-6000

The authors published no checksum: the file is kept only if it is, key by key, a checkpoint of the
segmentation network. After an interruption, the same command continues. Then run the stage's
test.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import ROOT, Parser
from utils.errors import InputError, about, run

URL = 'https://drive.google.com/uc?id={}'
CHECKPOINTS = {
    'cub200-seg': ('1jiVhHD2eHsSKwfQ9FFv5rcC7w4lJvlka', 'cub200-seg/out/model-8'),
    'imagenet-seg': ('1QLMh0DXdUeD51dtl6iTGtiVFauorHN5p', 'imagenet-seg/out/model-6000'),
}


def main():
    parser = Parser(__doc__)
    parser.add_argument('checkpoint', choices=CHECKPOINTS)
    file_id, place = CHECKPOINTS[parser.parse_args().checkpoint]
    fetch(URL.format(file_id), ROOT / place)


def fetch(url: str, path: Path) -> None:
    """Download a segmentation checkpoint to `path`; raises InputError where that fails."""
    import gdown

    from network import SegNet, load_checkpoint

    if path.exists():
        raise InputError(f'{path} exists already: move it away first')
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f'{path.name}.download')
    with about(f'cannot download {url}: run again, or put the file at {path} by hand'):
        gdown.download(url, str(incoming), resume=True)
    try:
        load_checkpoint(SegNet(pretrained='none'), incoming)
    except InputError:
        incoming.unlink(missing_ok=True)
        raise
    incoming.rename(path)
    print(f'wrote {path}')


if __name__ == '__main__':
    run(main)
