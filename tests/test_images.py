"""Images: read as they are stored, resized as OpenCV does it; masks: foreground, or refused."""

import io

import cv2
import numpy as np
import pytest
from conftest import complaint, encoded, png_header, write_image
from PIL import Image, ImageOps

from utils.errors import InputError
from utils.images import (
    is_suspicious,
    read_grey,
    read_header,
    read_image,
    read_stored_mask,
    read_true_mask,
    read_upright_image,
)

RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]

# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize(('stored', 'expected'), [
    (np.array([[[0, 0, 255], [0, 255, 0], [255, 0, 0]]], np.uint8), [[RED, GREEN, BLUE]]),  # BGR
    (np.array([[0, 7], [200, 255]], np.uint8), [[[0] * 3, [7] * 3], [[200] * 3, [255] * 3]]),
    (np.array([[[30, 20, 10, 0], [30, 20, 10, 255]]], np.uint8), [[[10, 20, 30]] * 2]),
    (np.array([[0, 0x1234, 0xff00]], np.uint16), [[[0] * 3, [0x12] * 3, [0xff] * 3]])],
    ids=['colour', 'grey', 'alpha is dropped', '16 bits'])
def test_every_image_is_rgb_of_8_bits(tmp_path, stored, expected):
    image = read_image(write_image(tmp_path / 'a.jpg', stored))
    assert image.dtype == np.uint8
    assert image.tolist() == expected


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif'])
def test_pixels_lie_as_they_are_stored_and_upright_on_request(tmp_path, suffix, orientation):
    """OpenCV applies a TIFF's orientation whatever its flags: such a file is refused."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8], stored[8:, 24:] = RED, BLUE
    exif = Image.Exif()
    exif[0x0112] = orientation
    path, tolerance = tmp_path / f'a{suffix}', 10 if suffix == '.jpg' else 0
    lossy = {'quality': 95, 'subsampling': 0} if suffix == '.jpg' else {}
    Image.fromarray(stored).save(path, exif=exif, **lossy)
    if suffix == '.tif' and orientation > 1:
        with pytest.raises(InputError, match='TIFF with an orientation'):
            read_image(path)
        return
    np.testing.assert_allclose(read_image(path), stored.astype(int), atol=tolerance)
    assert read_header(path) == ((16, 32), orientation)
    with Image.open(path) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert('RGB'))
    np.testing.assert_allclose(read_upright_image(path), upright.astype(int), atol=tolerance)


# ---------------------------------------------------------------- files that are no images


@pytest.mark.parametrize('share', [0.02, 0.3, 0.9, 0.99])
@pytest.mark.parametrize(('suffix', 'flags'), [
    ('.jpg', ()), ('.jpg', (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), ('.png', ())])
def test_a_file_that_is_cut_off_is_no_image(tmp_path, suffix, flags, share):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    whole = encoded(cv2.resize(noise, (400, 300)), suffix, *flags)
    path = tmp_path / f'a{suffix}'
    path.write_bytes(whole + bytes(5000))  # what follows the end does no harm
    assert read_image(path).shape == (300, 400, 3)
    path.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(InputError, match='truncated'):
        read_image(path)


@pytest.mark.parametrize('reader', [read_image, read_stored_mask, read_true_mask, read_grey])
@pytest.mark.parametrize('content', [
    None, b'', b'<html>404</html>', png_header(4, 5), b'\xff\xd8\xff\xe0 begins as a JPEG'],
    ids=['missing', 'empty', 'text', 'header', 'garbage'])
def test_what_is_no_image_is_an_input_error_with_the_path(tmp_path, reader, content):
    path = tmp_path / 'bird.jpg'
    if content is not None:
        path.write_bytes(content)
    assert str(path) in complaint(reader, path)


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    """102 million are a current camera's."""
    assert Image.MAX_IMAGE_PIXELS > 102e6
    path = write_image(tmp_path / 'a.png', np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 999)
    with pytest.raises(InputError, match='2000 pixels. exceeds limit of 1998'):
        read_image(path)


# ---------------------------------------------------------------- masks


def saved(mode, values):
    """A PNG of Pillow's `mode`, a pixel for each value in one row."""
    image, content = Image.new(mode, (len(values), 1)), io.BytesIO()
    if mode == 'P':
        image.putpalette([number * step % 256 for number in range(256) for step in (7, 60, 33)])
    image.putdata(values)
    image.save(content, 'PNG')
    return content.getvalue()


BLACK, PINK, TEAL = (0, 0, 0), (250, 20, 147), (0, 128, 128)
GOOD_MASKS = {  # -> foreground, ignored
    '0 and 255': ('L', [0, 255, 255], '011', '000'),
    'one bit': ('1', [0, 255, 255], '011', '000'),
    '16 bits': ('I;16', [0, 65535, 0], '010', '000'),
    'class index': ('L', [0, 15, 0], '010', '000'),
    'class index and void': ('L', [0, 15, 255], '010', '001'),
    'class index in a palette': ('P', [0, 15, 255], '010', '001'),
    'colour': ('RGB', [BLACK, PINK, PINK], '011', '000'),
    'grey as RGB': ('RGB', [BLACK, (9, 9, 9), (255, 255, 255)], '010', '001'),
    'opaque RGBA': ('RGBA', [(*BLACK, 255), (*PINK, 255), (*BLACK, 255)], '010', '000'),
    'alpha over one colour': ('RGBA', [(*PINK, 0), (*PINK, 255), (*PINK, 0)], '010', '000'),
    'grey and alpha': ('LA', [(0, 0), (0, 255), (0, 255)], '011', '000'),
    'soft edges': ('L', [0, 90, 130, 255, 255, 255], '001111', '000000'),
    'no object': ('L', [0, 0, 0], '000', '000'),
}
BAD_MASKS = {
    'trimap': ('L', [1, 2, 2], '1, 2,'), 'trimap with a border': ('L', [1, 2, 3], '1, 2, 3,'),
    'instances': ('L', [0, 1, 2], '0, 1, 2,'), 'classes': ('L', [0, 1, 2, 255], '0, 1, 2, 255,'),
    'colours': ('RGB', [BLACK, PINK, TEAL], 'not 0 and one other'),
    'two colours': ('RGB', [PINK, TEAL, TEAL], 'not 0 and one other'),
    'colours and alpha': ('RGBA', [(*PINK, 0), (*TEAL, 255), (*TEAL, 255)], 'either'),
    'a photograph': ('L', list(range(0, 256, 5)), '0, 5, 10, 15, 20, 25, ...'),
}


@pytest.mark.parametrize('kind', GOOD_MASKS)
def test_masks_of_background_and_foreground_are_read(tmp_path, kind):
    mode, values, *expected = GOOD_MASKS[kind]
    (tmp_path / 'm.png').write_bytes(saved(mode, values))
    for part, bits in zip(read_true_mask(tmp_path / 'm.png'), expected, strict=True):
        assert part.dtype == bool
        assert ''.join(str(int(value)) for value in part[0]) == bits


@pytest.mark.parametrize('kind', BAD_MASKS)
def test_masks_that_could_mean_anything_are_refused_with_their_values(tmp_path, kind):
    mode, values, said = BAD_MASKS[kind]
    (tmp_path / 'm.png').write_bytes(saved(mode, values))
    message = complaint(read_true_mask, tmp_path / 'm.png')
    assert said in message
    assert 'write masks of 0 and 255' in message


def test_a_mask_has_the_shape_of_its_image(tmp_path):
    """One of the same shape and another scale is resized; a turned one is refused."""
    mask = np.zeros((60, 80), np.uint8)
    mask[:30, :20] = 255
    path = write_image(tmp_path / 'm.png', mask)
    for size in ((60, 80), (30, 40), (61, 80)):
        foreground, _ = read_true_mask(path, size)
        assert foreground.shape == size
        assert foreground.mean() == pytest.approx(1 / 8, abs=0.01)
        assert foreground[size[0] // 2 - 2, size[1] // 4 - 2]
    for size in ((80, 60), (60, 60), (60, 100)):
        with pytest.raises(InputError, match=f'80 x 60 .*its image {size[1]} x {size[0]}'):
            read_true_mask(path, size)


@pytest.mark.parametrize(('rows', 'columns', 'expected'), [
    (slice(2, 8), slice(0, 9), False), (slice(0, 10), slice(0, 10), True),
    (slice(0, 10), slice(3, 4), False), (slice(0, 0), slice(0, 0), False)])
def test_inverted_masks_are_suspicious(rows, columns, expected):
    mask = np.zeros((10, 10), bool)
    mask[rows, columns] = True
    assert is_suspicious(mask) == expected
    mask[5], mask[:, 5] = True, True
    assert is_suspicious(mask)
