"""bad_images.txt: the images that --skip_bad left out, because they cannot be decoded."""

import argparse
import contextlib

from utils.data.lists import ImageList
from utils.engine.distributed import gather, is_main
from utils.errors import InputError
from utils.outputs.files import write_text


class BadImages:
    """Notes the images of a list that cannot be decoded; a resumed run goes on with its notes."""

    def __init__(self, args: argparse.Namespace, images: ImageList):
        self.wanted, self._images = args.skip_bad, images
        self.path = args.savepath / 'bad_images.txt'
        self._names: set[str] = set()
        if self.wanted and args.mode == 'train' and args.resume:
            with contextlib.suppress(OSError):
                self._names.update(self.path.read_text(errors='surrogateescape').splitlines())

    def add(self, index: int) -> None:
        self._names.add(self._images.names[index])

    def write(self) -> None:
        """Write the notes of all processes, all of which must ask for it.

        Raises InputError where no image is left.
        """
        if not self.wanted:
            return
        self._names.update(*gather(self._names))
        if is_main():
            write_text(self.path, ''.join(f'{name}\n' for name in sorted(self._names)))
            if len(self._names) == len(self._images):
                raise InputError(f'none of the images can be decoded: see {self.path}')

    def mention(self) -> str:
        """The end of a script's last line."""
        return (f'; left out {len(self._names)} images that cannot be decoded: {self.path}'
                if self._names else '')
