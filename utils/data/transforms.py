"""The transforms of training: albumentations made reproducible, and checked."""

import random
from typing import TYPE_CHECKING

import numpy as np

from utils.errors import InputError

if TYPE_CHECKING:
    import albumentations as A  # takes seconds to import, and tests do without


def seed_transform(transform: 'A.Compose', *entropy: int) -> None:
    """Make the transform's next call depend on `entropy` (integers >= 0) alone."""
    state = np.random.SeedSequence(entropy)
    # set_random_seed would give each step the same stream, so that all apply together or none.
    transform.set_random_state(np.random.default_rng(state),
                               random.Random(int(state.generate_state(1, np.uint64)[0])))


def check_image(image: object, transform: 'A.Compose') -> None:
    """Raise InputError, which names the step, unless the transform's image is uint8, or float32 in
    [0, 1], H x W x 3: it is normalised and made a tensor later."""
    if not isinstance(image, np.ndarray):
        step, found = _step(transform, 'ToTensor'), f'a {type(image).__name__}'
    elif image.ndim != 3 or image.shape[2] != 3:
        step, found = _step(transform, 'ToGray'), f'an array of the shape {image.shape}'
    elif image.dtype == np.uint8 or (
            image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1):
        return
    else:
        step = _step(transform, 'Normalize')
        found = f'{image.dtype} from {image.min():.3g} to {image.max():.3g}'
    raise InputError(f'the transform in train.py gives {found}, but training normalises the image '
                     'and makes the tensor itself, from uint8 or float32 in [0, 1], H x W x 3: '
                     f'leave out A.{step}')


def check_sizes(images: list[np.ndarray], transform: 'A.Compose') -> None:
    """Raise InputError unless all images of a batch have one size."""
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        raise InputError(f'the transform in train.py gives images of several sizes ({sizes[0]}, '
                         f'{sizes[-1]}), of which no batch can be made: end with a step of a fixed '
                         f'size, such as A.RandomCrop, after A.{_step(transform)}')


def _step(transform: 'A.Compose', suspect: str | None = None) -> str:
    """The class of the last step, or of that whose name begins with `suspect`."""
    names = [type(step).__name__ for step in transform.transforms]
    return next((name for name in names if suspect and name.startswith(suspect)), names[-1])
