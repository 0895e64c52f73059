"""Images: read as they are stored, resized as OpenCV does it."""

import subprocess
import sys
import unicodedata
import zlib

import cv2
import numpy as np
import pytest
from conftest import ROOT

from utils.data import images
from utils.data.images import (
    BadImageError,
    read_binary_mask,
    read_image,
    read_size,
    read_stored_mask,
    read_upright_image,
    resize,
    resize_nearest,
)
from utils.errors import InputError

RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]


def write_cv2(path, image):
    """Write bytes in OpenCV's order (BGR, BGRA, grey)."""
    path.write_bytes(cv2.imencode(path.suffix, np.asarray(image))[1].tobytes())
    return path


@pytest.fixture(scope='module')
def pillow():
    return pytest.importorskip('PIL.Image')


def test_a_colour_image_is_rgb(tmp_path):
    path = write_cv2(tmp_path / 'a.png', np.array([[[0, 0, 255], [0, 255, 0], [255, 0, 0]]],
                                                  np.uint8))  # BGR
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.tolist() == [[RED, GREEN, BLUE]]


def test_a_grey_image_has_three_equal_channels(tmp_path):
    image = read_image(write_cv2(tmp_path / 'a.png', np.array([[0, 7], [200, 255]], np.uint8)))
    assert image.tolist() == [[[0] * 3, [7] * 3], [[200] * 3, [255] * 3]]


def test_alpha_is_dropped_and_not_blended(tmp_path):
    bgra = np.array([[[30, 20, 10, 0], [30, 20, 10, 128], [30, 20, 10, 255]]], np.uint8)
    assert read_image(write_cv2(tmp_path / 'a.png', bgra)).tolist() == [[[10, 20, 30]] * 3]


def test_sixteen_bits_become_the_upper_eight(tmp_path):
    """0x1234 -> 0x12, 0xff00 -> 0xff, and grey becomes RGB."""
    image = read_image(write_cv2(tmp_path / 'a.png', np.array([[0, 0x1234, 0xff00]], np.uint16)))
    assert image.dtype == np.uint8
    assert image.tolist() == [[[0] * 3, [0x12] * 3, [0xff] * 3]]


def test_a_palette_image_shows_its_colours(tmp_path, pillow):
    image = pillow.new('P', (3, 1))
    image.putpalette(RED + GREEN + BLUE + [0] * (3 * 253))
    image.putdata([2, 0, 1])
    image.save(tmp_path / 'a.png')
    assert read_image(tmp_path / 'a.png').tolist() == [[BLUE, RED, GREEN]]


def test_a_cmyk_jpeg_becomes_rgb(tmp_path, pillow):
    """Full cyan ink leaves no red; no ink at all is white."""
    for colour, expected in (((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 0), (255, 255, 255))):
        pillow.new('CMYK', (16, 16), colour).save(tmp_path / 'a.jpg', quality=95)
        image = read_image(tmp_path / 'a.jpg')
        assert image.shape == (16, 16, 3)
        np.testing.assert_allclose(image.reshape(-1, 3).mean(0), expected, atol=6)


def test_an_exif_orientation_is_ignored(tmp_path, pillow):
    """Orientation 6 (turn right) would make 32 x 16 of the stored 16 x 32, black at the left."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, 16:] = 255
    exif = pillow.Exif()
    exif[0x0112] = 6
    pillow.fromarray(stored).save(tmp_path / 'a.jpg', quality=95, exif=exif)
    with pillow.open(tmp_path / 'a.jpg') as opened:
        assert opened.getexif()[0x0112] == 6
    np.testing.assert_allclose(read_image(tmp_path / 'a.jpg'), stored, atol=6)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['.tif', '.png', '.jpg'])
def test_pixels_lie_as_they_are_stored(tmp_path, pillow, suffix, orientation):
    """OpenCV applies a TIFF's orientation whatever its flags."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8], stored[8:, 24:] = RED, BLUE
    exif = pillow.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'a{suffix}'
    lossy = suffix == '.jpg'
    pillow.fromarray(stored).save(path, exif=exif,
                                  **{'quality': 95, 'subsampling': 0} if lossy else {})
    tolerance = 10 if lossy else 0
    np.testing.assert_allclose(read_image(path), stored.astype(int), atol=tolerance)
    assert read_size(path) == (16, 32)
    turned = read_upright_image(path)
    assert turned.shape[:2] == ((32, 16) if orientation > 4 else (16, 32))
    from PIL import ImageOps

    with pillow.open(path) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert('RGB'))
    np.testing.assert_allclose(turned, upright.astype(int), atol=tolerance)


def png_with(chunk, content):
    """A 4 x 5 PNG with a further chunk after its header."""
    whole = cv2.imencode('.png', np.full((5, 4, 3), 9, np.uint8))[1].tobytes()
    body = chunk + content
    return (whole[:33] + len(content).to_bytes(4, 'big') + body
            + zlib.crc32(body).to_bytes(4, 'big') + whole[33:])


@pytest.mark.parametrize(('chunk', 'content'), [
    (b'iCCP', b'profile\0\0' + zlib.compress(np.random.default_rng(0).bytes(3 << 20))),
    (b'zTXt', b'comment\0\0' + zlib.compress(bytes(3 << 20))),
    (b'tEXt', b'comment\0' + b'x' * (3 << 20))], ids=['profile', 'compressed', 'text'])
def test_a_png_with_a_long_profile_or_text_is_read(tmp_path, chunk, content):
    """Pillow, which reads the size, refuses more than 1 MiB."""
    (tmp_path / 'a.png').write_bytes(png_with(chunk, content))
    assert read_image(tmp_path / 'a.png').shape == (5, 4, 3)


def test_as_many_pixels_as_a_camera_has(tmp_path, pillow, monkeypatch):
    """102 million are a current camera's. A smaller limit here, to save memory and time."""
    assert images.MAX_PIXELS >= 200e6
    assert pillow.MAX_IMAGE_PIXELS >= images.MAX_PIXELS / 2  # Pillow refuses twice as many
    monkeypatch.setattr(images, 'MAX_PIXELS', 3_000_000)
    write_cv2(tmp_path / 'a.png', np.zeros((1500, 2000), np.uint8))
    assert read_image(tmp_path / 'a.png').shape == (1500, 2000, 3)
    for name in ('b.png', 'b.jpg'):
        write_cv2(tmp_path / name, np.zeros((1501, 2000), np.uint8))
        with pytest.raises(BadImageError, match='2000 x 1501 pixels, more than 3 million'):
            read_image(tmp_path / name)


OUT_OF_MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from utils.data.images import BadImageError, InputError, read_image
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
limit = used + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[3:]:
    try:
        read_image(Path(path))
    except InputError as error:
        print(type(error).__name__, error)
"""


def test_lack_of_memory_is_no_fault_of_the_image(tmp_path):
    """OpenCV raises where its own array does not fit, and returns nothing where libjpeg fails."""
    noise = cv2.resize(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8),
                       (4000, 4000))
    paths = [write_cv2(tmp_path / f'a{suffix}', noise) for suffix in ('.jpg', '.png')]
    progressive = cv2.imencode('.jpg', noise, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))[1]
    (tmp_path / 'progressive.jpg').write_bytes(progressive.tobytes())
    for megabytes, name in ((20, ''), (60, 'progressive')):  # the array has 48
        some = [path for path in (*paths, tmp_path / 'progressive.jpg') if name in path.name]
        found = subprocess.run([sys.executable, '-c', OUT_OF_MEMORY, ROOT,
                                str(megabytes * 2**20), *some],
                               capture_output=True, text=True, check=True).stdout
        assert found.count('InputError out of memory') == len(some), found


def test_a_name_of_other_case_or_unicode_form_is_told(tmp_path):
    """macOS decomposes accents; Windows does not tell cases apart."""
    folder = tmp_path / unicodedata.normalize('NFD', 'Müller')
    folder.mkdir()
    write_cv2(folder / 'a.png', np.zeros((2, 2), np.uint8)).rename(folder / 'A.PNG')
    for name in (folder / 'a.png', tmp_path / unicodedata.normalize('NFC', 'Müller') / 'A.PNG'):
        with pytest.raises(InputError, match='spelled differently'):
            read_image(name)
    (tmp_path / 'link.png').symlink_to('nowhere')
    for name in ('link.png', 'other.png', 'no/folder.png'):
        with pytest.raises(InputError, match='check the list'):
            read_image(tmp_path / name)


def test_images_with_a_rotation_are_counted_once_a_list(tmp_path, pillow, capsys):
    from utils.data import cub, imagenet

    exif = pillow.Exif()
    exif[0x0112] = 6
    for layout in ('image', 'train'):
        (tmp_path / layout).mkdir()
        for number in range(4):
            pillow.new('RGB', (4, 2)).save(tmp_path / layout / f'{number}.jpg',
                                           **{'exif': exif} if number % 2 else {})
    (tmp_path / 'train.txt').write_text(''.join(f'{number}.jpg,0\n' for number in range(5)))
    cub.read_images(tmp_path, 'train.txt', 2)
    (tmp_path / 'train.txt').write_text(''.join(f'{number}.jpg 0\n' for number in range(5)))
    imagenet.read_train_images(tmp_path, 'train.txt', 2)
    lines = capsys.readouterr().err.splitlines()
    assert ['2 of 5 images have an EXIF rotation' in line for line in lines] == [True] * 2


def make_empty(path):
    path.write_bytes(b'')


def make_garbage(path):
    path.write_bytes(b'\xff\xd8\xff\xe0 this is no JPEG, though it begins as one')


def make_beginning_of_a_png(path):
    whole = cv2.imencode('.png', np.full((8, 8, 3), 9, np.uint8))[1].tobytes()
    path.write_bytes(whole[:20])


def make_text(path):
    path.write_text('<html>404</html>')


@pytest.mark.parametrize('reader', [read_image, read_stored_mask, read_binary_mask])
@pytest.mark.parametrize('make', [make_empty, make_garbage, make_beginning_of_a_png, make_text,
                                  lambda path: path.mkdir(), lambda path: None],
                         ids=['empty', 'garbage', 'truncated', 'text', 'folder', 'missing'])
def test_what_is_no_image_is_an_input_error_with_the_path(tmp_path, reader, make):
    path = tmp_path / 'bird.jpg'
    make(path)
    with pytest.raises(InputError) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_path_through_a_file_is_an_input_error(tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(InputError, match='bird.jpg'):
        read_image(tmp_path / 'file' / 'bird.jpg')


def test_a_stored_mask_is_its_first_two_channels_in_bgr_order(tmp_path):
    stored = np.array([[[1, 2, 0], [200, 100, 0]]], np.uint8)
    assert read_stored_mask(write_cv2(tmp_path / 'm.png', stored)).tolist() == [
        [[1, 2], [200, 100]]]


def test_a_binary_mask_is_what_exceeds_half_of_the_range(tmp_path):
    """255 / 2 = 127.5: 128 is the first byte above."""
    mask = read_binary_mask(write_cv2(tmp_path / 'm.png', np.array([[0, 127, 128, 255]], np.uint8)))
    assert mask.tolist() == [[False, False, True, True]]


@pytest.mark.parametrize(('row', 'width', 'expected'), [
    # Twice the width: centres at (i + 0.5) / 2 - 0.5 = -0.25, 0.25, 0.75, 1.25.
    ([0, 100], 4, [0, 25, 75, 100]),
    # Half: centres at 0.5 and 2.5.
    ([0, 100, 40, 60], 2, [50, 50]),
    # A quarter: centres at 1.5 and 5.5; pixels 0, 3, 4, 7 have no say (no antialiasing).
    ([255, 10, 30, 255, 255, 50, 90, 255], 2, [20, 70]),
    # 3 -> 2: centres at 0.25 and 1.75.
    ([0, 100, 200], 2, [25, 175]),
])
def test_resize_is_bilinear_with_half_pixel_centres(row, width, expected):
    image = np.repeat(np.array([row], np.uint8)[..., None], 3, axis=2)
    assert resize(image, (1, width))[..., 0].tolist() == [expected]
    turned = np.swapaxes(image, 0, 1)
    assert resize(turned, (width, 1))[:, 0, 2].tolist() == expected


def test_resize_takes_height_first_and_does_not_keep_the_aspect_ratio():
    assert resize(np.zeros((4, 8, 3), np.uint8), (5, 7)).shape == (5, 7, 3)
    assert resize_nearest(np.zeros((4, 8, 2), np.uint8), (5, 7)).shape == (5, 7, 2)


@pytest.mark.parametrize(('count', 'width', 'expected'), [
    (4, 2, [0, 2]),         # floor(i * 4 / 2): no half pixel here
    (2, 4, [0, 0, 1, 1]),
    (5, 2, [0, 2]),         # floor(0), floor(2.5)
    (3, 5, [0, 0, 1, 1, 2]),  # floor(i * 0.6) = 0, 0.6, 1.2, 1.8, 2.4
])
def test_resize_nearest_takes_the_pixel_at_the_floor(count, width, expected):
    image = np.arange(count, dtype=np.uint8)[None]
    assert resize_nearest(image, (1, width)).tolist() == [expected]


def test_resize_nearest_makes_no_new_values():
    image = np.random.default_rng(0).choice(np.array([3, 200], np.uint8), (37, 51, 2))
    assert set(np.unique(resize_nearest(image, (256, 256)))) == {3, 200}
