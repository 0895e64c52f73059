"""The benchmark's files, and score maps from a folder."""

from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tools.judge.ground_truth import check_scale, from_image_list, read_benchmark
from tools.judge.score_maps import find_score_map, read_score_map
from utils.data.images import read_binary_mask
from utils.data.lists import read_cub_list
from utils.errors import InputError


@pytest.fixture
def metadata(tmp_path):
    """metadata({'localization.txt': lines, ...}) -> a folder with these files."""
    def make(files):
        for name, lines in files.items():
            (tmp_path / name).write_text('\n'.join(lines) + '\n')
        return tmp_path
    return make


BOXES = {'image_ids.txt': ['a/1.jpg', 'a/2.jpg'],
         'image_sizes.txt': ['a/1.jpg,500,300', 'a/2.jpg,10,20'],
         'localization.txt': ['a/1.jpg,1,2,30,40', 'a/2.jpg,0,0,5,6', 'a/1.jpg,5,6,7,8']}


def test_boxes_of_the_benchmark_are_several_lines_an_image(metadata):
    first, second = read_benchmark(metadata(BOXES))
    assert (first.name, first.size, second.size) == ('a/1.jpg', (300, 500), (20, 10))
    assert first.boxes.tolist() == [[1, 2, 30, 40], [5, 6, 7, 8]]
    assert second.boxes.tolist() == [[0, 0, 5, 6]]
    assert first.read_masks(224) is None


def test_masks_of_open_images_are_joined_and_objects_are_never_ignored(metadata, tmp_path):
    parts = {}
    for name, columns in (('m1', (0, 4)), ('m2', (4, 8)), ('ign', (6, 16))):
        image = np.zeros((16, 16), np.uint8)
        image[:, slice(*columns)] = 255
        cv2.imwrite(str(tmp_path / f'{name}.png'), image)
        parts[name] = image > 0
    truth, = read_benchmark(metadata({
        'image_ids.txt': ['x.jpg'],
        'localization.txt': ['x.jpg,m1.png,ign.png', 'x.jpg,m2.png,ign.png']}))
    foreground, ignored = truth.read_masks(16)
    np.testing.assert_array_equal(foreground, parts['m1'] | parts['m2'])
    np.testing.assert_array_equal(ignored[0], np.arange(16) >= 8)
    assert truth.boxes is None


@pytest.mark.parametrize(('file', 'lines', 'message'), [
    ('localization.txt', ['a/1.jpg,1,2,30,40', 'a/2.jpg,0,0,5'], 'localization.txt, line 2'),
    ('localization.txt', ['a/1.jpg,1,2,30,forty', 'a/2.jpg,0,0,5,6'], 'line 1: .*not coordinates'),
    ('localization.txt', ['a/1.jpg,1,2,30,40'], 'a/2.jpg is not in localization.txt'),
    ('localization.txt', [''], 'is empty'),
    ('image_sizes.txt', ['a/1.jpg,500,300'], 'a/2.jpg is not in image_sizes.txt'),
    ('image_ids.txt', ['../1.jpg'], 'does not stay in the data folder'),
    ('localization.txt', ['a/1.jpg,30,2,1,40', 'a/2.jpg,0,0,5,6'], 'line 1: .* before it begins'),
    ('localization.txt', ['a/1.jpg,1,2,30,40', 'a/2.jpg,0,6,5,0'], 'line 2: .* before it begins'),
    ('localization.txt', ['a/1.jpg,1,2,3,4', 'a/2.jpg,10,0,15,6'], 'line 2: .* outside its image'),
    ('localization.txt', ['a/1.jpg,1,2,3,4', 'a/2.jpg,-9,0,-2,6'], 'line 2: .* outside its image'),
    ('image_sizes.txt', ['a/1.jpg,500,300', 'a/2.jpg,0,20'], 'image_sizes.txt, line 2: .* 0 x 20'),
    ('localization.txt', ['a/1.jpg,0.1,0.2,0.5,0.6', 'a/2.jpg,0,0,1,1'], 'fractions'),
])
def test_a_bad_line_is_named(metadata, file, lines, message):
    with pytest.raises(InputError, match=message):
        check_scale(read_benchmark(metadata({**BOXES, file: lines})))


def test_boxes_of_one_pixel_and_boxes_that_stick_out_are_accepted(metadata):
    truths = read_benchmark(metadata({**BOXES, 'localization.txt': [
        'a/1.jpg,7,7,7,7', 'a/2.jpg,-1,0,5,21']}))
    assert truths[0].boxes.tolist() == [[7, 7, 7, 7]]
    assert 'boxes of 1 of 2 images stick out of their images, the first is a/2.jpg' in (
        check_scale(truths))
    assert truths[1].object_size == 0.5   # 5 x 20 of 10 x 20


def test_labels_of_the_benchmark(metadata):
    assert [truth.label for truth in read_benchmark(metadata(BOXES))] == [None, None]
    folder = metadata({**BOXES, 'class_labels.txt': ['a/1.jpg,4', 'a/2.jpg,0']})
    assert [truth.label for truth in read_benchmark(folder)] == [4, 0]


@pytest.mark.parametrize(('box', 'message'), [
    ('0.1 0.2 0.5 0.9', 'fractions'), ('60 2 70 9', r'list, image 1 \(c/1.png\).* outside')])
def test_boxes_of_our_lists_are_checked_as_well(tmp_path, box, message):
    (tmp_path / 'c').mkdir()
    cv2.imwrite(str(tmp_path / 'c' / '1.png'), np.zeros((30, 50, 3), np.uint8))
    (tmp_path / 'list').write_text(f'c/1.png,0,{box}\n')
    with pytest.raises(InputError, match=message):
        check_scale(list(from_image_list(read_cub_list(tmp_path / 'list', 1, tmp_path))))


@given(text=st.text(max_size=80))
def test_any_text_is_ground_truth_or_one_clear_error(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp('metadata')
    for name, lines in BOXES.items():
        (folder / name).write_text('\n'.join(lines))
    (folder / 'localization.txt').write_text(text, errors='replace')
    with suppress(InputError):
        read_benchmark(folder)


def test_our_lists_have_the_sizes_of_their_images(tmp_path):
    (tmp_path / 'c').mkdir()
    cv2.imwrite(str(tmp_path / 'c' / '1.png'), np.zeros((30, 50, 3), np.uint8))
    (tmp_path / 'list').write_text('c/1.png,0,1 2 3 4\n')
    truth, = from_image_list(read_cub_list(tmp_path / 'list', 1, tmp_path))
    assert (truth.size, truth.boxes.tolist()) == ((30, 50), [[1, 2, 3, 4]])


def test_maps_are_found_by_the_name_with_and_without_its_suffix(tmp_path):
    (tmp_path / 'a').mkdir()
    for name in ('1.jpg.npy', '2.npy', '3.jpg.png', '4.png'):
        (tmp_path / 'a' / name).touch()
    found = [find_score_map(tmp_path, f'a/{number}.jpg').name for number in range(1, 5)]
    assert found == ['1.jpg.npy', '2.npy', '3.jpg.png', '4.png']
    with pytest.raises(InputError, match=r'no map of a/5.jpg .*a/5.jpg.npy'):
        find_score_map(tmp_path, 'a/5.jpg')


def test_png_of_8_and_16_bits_and_arrays_give_the_same_map(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cv2.imwrite(str(tmp_path / '8.png'), levels)
    cv2.imwrite(str(tmp_path / '16.png'), levels.astype(np.uint16) * 257)
    np.save(tmp_path / 'a.npy', levels[None].astype(np.float16) / 256)
    eight, sixteen, array = (read_score_map(tmp_path / name, 16)
                             for name in ('8.png', '16.png', 'a.npy'))
    np.testing.assert_array_equal(eight * 257, sixteen)
    np.testing.assert_allclose(array * 256, levels)
    assert read_score_map(tmp_path / '8.png', 224).shape == (224, 224)


def test_what_is_no_map_is_one_clear_error(tmp_path):
    np.save(tmp_path / 'deep.npy', np.zeros((2, 3, 4)))
    np.save(tmp_path / 'object.npy', np.array([{}]))
    np.save(tmp_path / 'log.npy', np.where(np.eye(3), 0, -np.inf))
    (tmp_path / 'cut.npy').write_bytes((tmp_path / 'deep.npy').read_bytes()[:-8])
    (tmp_path / 'cut.png').write_bytes(b'\x89PNG')
    for name, message in (('deep.npy', 'H x W'), ('object.npy', 'numpy.save'),
                          ('log.npy', 'infinite'),
                          ('cut.npy', 'not a valid'), ('cut.png', 'damaged')):
        with pytest.raises(InputError, match=message):
            read_score_map(tmp_path / name, 224)


def test_coloured_maps_and_masks_are_refused(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    jet = cv2.applyColorMap(levels, cv2.COLORMAP_JET)
    alpha = np.dstack([levels] * 3 + [np.full_like(levels, 255)])
    for name, content in (('jet', jet), ('alpha', alpha)):
        cv2.imwrite(str(tmp_path / f'{name}.png'), content)
        with pytest.raises(InputError, match='colours or an alpha channel'):
            read_score_map(tmp_path / f'{name}.png', 16)
    palette = Image.fromarray(levels % 3, 'P')
    palette.putpalette([0, 0, 0, 128, 0, 0, 224, 224, 192])
    palette.save(tmp_path / 'palette.png')
    for reader in (read_binary_mask, lambda path: read_score_map(path, 16)):
        with pytest.raises(InputError, match='palette'):
            reader(tmp_path / 'palette.png')
    cv2.imwrite(str(tmp_path / 'equal.png'), np.dstack([levels] * 3))
    np.testing.assert_array_equal(read_score_map(tmp_path / 'equal.png', 16), levels)
    np.testing.assert_array_equal(read_binary_mask(tmp_path / 'equal.png'), levels > 127)
