"""Two thousand damaged inputs: each is read, or refused in one line; nothing crashes, hangs,
leaves its folder or eats the memory."""

import io
import pickle
import resource
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from network.weights import read_state
from utils.data.images import BadImageError, read_binary_mask, read_image, read_stored_mask
from utils.data.lists import read_cub_list, read_imagenet_list, read_xml_boxes
from utils.errors import InputError
from utils.outputs.top1top5 import read_top1top5

MOST_SECONDS, MOST_MEGABYTES = 10, 2048


def fuzz(count):
    """`count` examples, the same in every run."""
    return settings(max_examples=count, derandomize=True, deadline=1000 * MOST_SECONDS,
                    database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('fuzz')


@pytest.fixture(scope='module', autouse=True)
def _bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_MEGABYTES * 1024


@st.composite
def damaged(draw, originals):
    """One of the originals, cut off, with bytes changed, put in, or taken out."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(['change', 'insert', 'delete', 'cut', 'zero', 'header']))
        some = draw(st.binary(min_size=1, max_size=8))
        if kind == 'change':
            data[place:place + len(some)] = some
        elif kind == 'insert':
            data[place:place] = some
        elif kind == 'delete':
            del data[place:place + 16]
        elif kind == 'cut':
            del data[place:]
        elif kind == 'zero':
            data[place:place + 32] = bytes(len(data[place:place + 32]))
        else:
            place %= 64
            data[place:place + len(some)] = some
    return bytes(data)


def reads_or_refuses(read, path, data, *arguments):
    """The result of `read`, or None where it refuses the file in one line."""
    path.write_bytes(data)
    try:
        return read(path, *arguments)
    except InputError:
        return None


# ---------------------------------------------------------------- lists and boxes

LINES = ['0/a.jpg,1,3 4 50 60', '0/a.jpg,1', '../a.jpg,0,1 2 3 4', '/etc/passwd,0', 'a.jpg 1',
         'n01/b.JPEG 0', 'x/../../b.JPEG 3', 'c\\d.jpg,0', '~/a.jpg,0', 'a\0b.jpg,1']
TEXT = st.lists(st.one_of(st.sampled_from(LINES), st.text(max_size=40)), max_size=5)


@fuzz(500)
@given(lines=TEXT)
def test_lists(folder, lines):
    data = '\n'.join(lines).encode(errors='surrogatepass')
    for read in (read_cub_list, read_imagenet_list):
        images = reads_or_refuses(read, folder / 'list.txt', data, 3)
        for name in images.names if images else ():
            inside = (folder / name).resolve()
            assert inside.is_relative_to(folder.resolve()), name
            assert inside != folder.resolve()


XML = [b'<annotation><object><name>n01</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax>'
       b'<ymax>40</ymax></bndbox></object></annotation>',
       b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>',
       b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>']


@fuzz(250)
@given(data=damaged(XML))
def test_xml_boxes(folder, data):
    boxes = reads_or_refuses(read_xml_boxes, folder / 'a.xml', data, 'n01')
    assert boxes is None or boxes.shape[1:] == (4,)


# ---------------------------------------------------------------- images and masks


def encoded(suffix, image, *flags):
    return cv2.imencode(suffix, image, flags)[1].tobytes()


@cache
def pictures():
    rng = np.random.default_rng(0)
    colour = cv2.resize(rng.integers(0, 255, (5, 6, 3), np.uint8), (48, 40))
    grey, deep = colour[..., 0], colour.astype(np.uint16) * 257
    files = [encoded('.jpg', colour), encoded('.jpg', grey), encoded('.png', colour),
             encoded('.jpg', colour, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), encoded('.png', deep),
             encoded('.png', np.dstack([colour, grey])), encoded('.jpg', colour[:1, :1]),
             encoded('.png', colour[:1, :1]), encoded('.bmp', colour), encoded('.webp', colour),
             bomb('.png'), bomb('.bmp'), bomb('.jpg')]
    pillow = pytest.importorskip('PIL.Image')
    for mode, suffix in (('CMYK', 'JPEG'), ('P', 'PNG'), ('1', 'PNG'), ('L', 'GIF'), ('F', 'TIFF')):
        file = io.BytesIO()
        pillow.fromarray(colour).convert(mode).save(file, suffix)
        files.append(file.getvalue())
    turned = pillow.fromarray(colour)
    turned.getexif()[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, 'JPEG', exif=turned.getexif())
    return [*files, file.getvalue()]


def bomb(suffix):
    """A small file whose header promises 20,000 x 20,000 pixels."""
    data = bytearray(encoded(suffix, np.zeros((8, 8, 3), np.uint8)))
    if suffix == '.png':
        import zlib

        data[16:24] = (20_000).to_bytes(4, 'big') * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, 'big')
    elif suffix == '.bmp':
        data[18:26] = (20_000).to_bytes(4, 'little') * 2
    else:
        frame = data.index(b'\xff\xc0')
        data[frame + 5:frame + 9] = (20_000).to_bytes(2, 'big') * 2
    return bytes(data)


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.jpg'])
def test_bombs_are_refused(folder, suffix):
    (folder / 'bomb').write_bytes(bomb(suffix))
    with pytest.raises(BadImageError):
        read_image(folder / 'bomb')


@pytest.mark.filterwarnings('ignore::UserWarning:PIL')  # as programs do: utils.errors.run
@fuzz(600)
@given(data=st.deferred(lambda: damaged(pictures())))
def test_images(folder, data):
    image = reads_or_refuses(read_image, folder / 'image', data)
    assert image is None or (image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3)


@fuzz(250)
@given(data=st.deferred(lambda: damaged(pictures()[:8])))
def test_masks(folder, data):
    stored = reads_or_refuses(read_stored_mask, folder / 'mask.png', data)
    assert stored is None or (stored.dtype == np.uint8 and stored.shape[2:] == (2,))
    truth = reads_or_refuses(read_binary_mask, folder / 'mask.png', data)
    assert truth is None or (truth.dtype == bool and truth.ndim == 2)


# ---------------------------------------------------------------- checkpoints and top1top5.npy


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


@cache
def hit_files():
    hits = {'001.Albatross/a.jpg': [True, True], '鳥/b.jpg': [False, True]}
    own = np.array([(name, *pair) for name, pair in hits.items()],
                   dtype=[('name', 'U20'), ('top1', '?'), ('top5', '?')])
    return [saved(np.array(hits)), saved(own)]


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@fuzz(200)
@given(data=st.deferred(lambda: damaged(hit_files())))
def test_top1top5(folder, data):
    hits = reads_or_refuses(read_top1top5, folder / 'top1top5.npy', data)
    assert hits is None or all(isinstance(name, str) and len(pair) == 2
                               for name, pair in hits.items())
