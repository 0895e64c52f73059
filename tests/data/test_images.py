"""Images: read as they are stored, resized as OpenCV does it."""

import cv2
import numpy as np
import pytest

from utils.data.images import (
    read_binary_mask,
    read_image,
    read_stored_mask,
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
