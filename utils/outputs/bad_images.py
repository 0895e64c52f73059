"""bad_images.txt: the images that --skip_bad left out, because they cannot be decoded."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from utils.data.lists import ImageList
from utils.errors import InputError
from utils.outputs.files import write_text


class BadImages:
    """Collects the names of images that cannot be decoded."""

    def __init__(self, images: ImageList, path: Path):
        self._images, self.path = images, path
        self.names: set[str] = set()

    def load(self) -> None:
        """Add the names in the file of the run that is resumed."""
        with contextlib.suppress(OSError):
            self.names.update(self.path.read_text(errors='surrogateescape').splitlines())

    def add(self, index: int) -> None:
        self.names.add(self._images.name(index))

    def write(self, names_of_ranks: Iterable[set[str]]) -> None:
        """Write the names that all ranks have collected. Raises InputError if no image of the list
        is left."""
        self.names.update(*names_of_ranks)
        write_text(self.path, ''.join(f'{name}\n' for name in sorted(self.names)))
        if len(self.names) == len(self._images):
            raise InputError(f'none of the images can be decoded: see {self.path}')

    def summary(self) -> str:
        """The end of a script's last line."""
        return (f'; left out {len(self.names)} images that cannot be decoded: {self.path}'
                if self.names else '')
