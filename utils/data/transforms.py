"""Transforms: exact in tests, albumentations made reproducible in training."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from utils.data.images import resize

if TYPE_CHECKING:
    import albumentations as A  # takes seconds to import, and tests do without


@dataclass(frozen=True)
class EvalTransform:
    """image=uint8 H x W x 3 -> {'image': float32 in [0, 1]}, `side` x `side`, or its centre `crop`.

    The image becomes float32 before it is resized. Resizing bytes would round to whole grey
    levels, which moves boxes by pixels and changes pseudo masks.
    """

    side: int
    crop: int = 0

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        view = resize(image / np.float32(255), (self.side, self.side))
        return {'image': view[self.kept, self.kept]}

    @property
    def kept(self) -> slice:
        """The rows, and the columns, of the resized image that the crop keeps."""
        size = self.crop or self.side
        first = (self.side - size) // 2
        return slice(first, first + size)


def eval_transform(resize: int, crop: int = 0) -> EvalTransform:
    return EvalTransform(resize, crop)


def seed_transform(transform: 'A.Compose', *entropy: int) -> None:
    """Make the transform's next call depend on `entropy` (integers >= 0) alone."""
    state = np.random.SeedSequence(entropy)
    # set_random_seed would give each step the same stream, so that all apply together or none.
    transform.set_random_state(np.random.default_rng(state),
                               random.Random(int(state.generate_state(1, np.uint64)[0])))
