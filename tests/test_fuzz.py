"""A thousand damaged files: each is read or refused; nothing crashes or hangs."""

import io
import pickle
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from conftest import encoded, png_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from network.weights import read_state
from utils.errors import InputError
from utils.images import read_image, read_stored_mask, read_true_mask

MAX_SECONDS = 10


def fuzz(count):
    """`count` examples, the same in every run."""
    return settings(max_examples=count, derandomize=True, deadline=1000 * MAX_SECONDS,
                    database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('fuzz')


@st.composite
def damaged(draw, originals):
    """One of the originals, cut off, with bytes changed, put in, or taken out."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(['change', 'header', 'insert', 'delete', 'cut']))
        some = draw(st.binary(min_size=1, max_size=8) | st.just(bytes(32)))
        place = place % 64 if kind == 'header' else place
        if kind == 'cut':
            del data[place:]
        else:
            data[place:place + {'insert': 0, 'delete': 16}.get(kind, len(some))] = some
    return bytes(data)


def reads_or_refuses(read, path, data):
    """The result of `read`, or None where it refuses the file."""
    path.write_bytes(data)
    try:
        return read(path)
    except InputError:
        return None


@cache
def pictures():
    rng = np.random.default_rng(0)
    colour = cv2.resize(rng.integers(0, 255, (5, 6, 3), np.uint8), (48, 40))
    grey, deep = colour[..., 0], colour.astype(np.uint16) * 257
    files = [encoded(colour, '.jpg'), encoded(grey, '.jpg'), encoded(colour), encoded(deep),
             encoded(colour, '.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1), encoded(255 * (grey > 99)),
             encoded(np.dstack([colour, grey])), encoded(colour[:1, :1], '.jpg'),
             encoded(colour, '.bmp'), encoded(colour, '.webp'), png_header(20_000, 20_000)]
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode, kind in (('CMYK', 'JPEG'), ('P', 'PNG'), ('1', 'PNG'), ('L', 'GIF'), ('F', 'TIFF'),
                       ('LA', 'PNG')):
        file = io.BytesIO()
        Image.fromarray(colour).convert(mode).save(file, kind, exif=exif)
        files.append(file.getvalue())
    return files


@pytest.mark.filterwarnings('ignore::UserWarning:PIL')
@fuzz(500)
@given(data=st.deferred(lambda: damaged(pictures())))
def test_images(folder, data):
    image = reads_or_refuses(read_image, folder / 'image', data)
    assert image is None or (image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3)


@pytest.mark.filterwarnings('ignore::UserWarning:PIL')
@fuzz(300)
@given(data=st.deferred(lambda: damaged(pictures())))
def test_masks(folder, data):
    stored = reads_or_refuses(read_stored_mask, folder / 'mask.png', data)
    assert stored is None or (stored.dtype == np.uint8 and stored.shape[2:] == (2,))
    for part in reads_or_refuses(read_true_mask, folder / 'mask.png', data) or ():
        assert part.dtype == bool
        assert part.ndim == 2


@cache
def checkpoints():
    state = {'head.weight': torch.arange(12.).reshape(3, 4), 'head.bias': torch.zeros(3)}
    files = []
    for options in ({}, {'_use_new_zipfile_serialization': False}):
        file = io.BytesIO()
        torch.save(state, file, **options)
        files.append(file.getvalue())
    return [*files, pickle.dumps(state)]


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@fuzz(200)
@given(data=st.deferred(lambda: damaged(checkpoints())))
def test_checkpoints(folder, data):
    state = reads_or_refuses(read_state, folder / 'model-1', data)
    assert state is None or all(isinstance(value, torch.Tensor) for value in state.values())
