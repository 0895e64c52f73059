"""Data sets: items that hang on nothing but (seed, epoch, index)."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.data.datasets import RandomCrop, TrainingImages, TrainingMasks, mask_path
from utils.data.datasets import TestImages as ImagesToTest  # pytest collects classes named Test...
from utils.data.images import read_image, resize
from utils.data.lists import ImageList, PackedNames
from utils.errors import InputError

NAMES = ['a/1.jpg', 'a/2.JPEG', 'b/3.jpg']
SIZES = [(40, 60), (50, 30), (33, 33)]  # height, width
LABELS = [2, 0, 1]
RESIZE, CROP = 32, 24


def write_png(path, image):
    """PNG whatever the name: what a file holds tells its format, not its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode('.png', image)[1].tobytes())


@pytest.fixture(scope='module')
def images():
    return ImageList(PackedNames(NAMES), np.array(LABELS), None)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Noise images and, in mask/, noise masks."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for name, size in zip(NAMES, SIZES, strict=True):
        write_png(root / name, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        write_png(root / 'mask' / Path(name).with_suffix('.png'),
                  rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return root


@pytest.fixture(scope='module')
def make(images, folder):
    """make(kind, seed=0) -> a fresh training data set."""
    def call(kind, seed=0):
        extra = [folder / 'mask'] if kind is TrainingMasks else []
        return kind(images, folder, RESIZE, CROP, seed, *extra)

    return call


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


KEYS = [(epoch, index) for epoch in range(3) for index in range(3)]
kinds = pytest.mark.parametrize('kind', [TrainingImages, TrainingMasks])


@kinds
def test_an_item_is_the_same_in_any_order_and_from_any_object(make, kind):
    dataset = make(kind)
    forwards = {key: dataset[key] for key in KEYS}
    for key in reversed(KEYS):
        assert same(dataset[key], forwards[key])
        assert same(make(kind)[key], forwards[key])


@kinds
def test_epochs_indices_and_seeds_draw_anew(make, kind):
    dataset, other = make(kind), make(kind, seed=1)
    draws = [dataset.random_crop(epoch, 0) for epoch in range(20)]
    assert len(set(draws)) >= 15
    assert sum(dataset.random_crop(e, 0) != dataset.random_crop(e, 1) for e in range(20)) >= 15
    assert sum(dataset.random_crop(e, 0) != other.random_crop(e, 0) for e in range(20)) >= 15
    assert not all(same(dataset[0, 0], dataset[epoch, 0]) for epoch in range(1, 4))


def test_an_item_is_the_resized_image_cropped_and_flipped(make, folder):
    dataset = make(TrainingImages)
    assert len(dataset) == 3
    flips = set()
    for epoch, index in KEYS:
        crop = dataset.random_crop(epoch, index)
        whole = resize(read_image(folder / NAMES[index]), (RESIZE, RESIZE))
        expected = whole[crop.top:crop.top + CROP, crop.left:crop.left + CROP]
        item = dataset[epoch, index]
        np.testing.assert_array_equal(item['image'], expected[:, ::-1] if crop.flip else expected)
        assert item['label'] == LABELS[index]
        flips.add(crop.flip)
    assert flips == {True, False}


def test_crops_lie_within_the_image_and_reach_all_its_edges():
    """5 to 3: 0, 1, 2 for top and left; half of 2,000 draws are flipped (within 10 sigma)."""
    rng = np.random.default_rng(0)
    draws = [RandomCrop.draw(rng, 5, 3) for _ in range(2000)]
    assert {(draw.top, draw.left) for draw in draws} == {(t, x) for t in range(3) for x in range(3)}
    assert abs(sum(draw.flip for draw in draws) - 1000) < 10 * np.sqrt(2000 / 4)


def test_a_crop_of_the_whole_size_only_flips():
    rng = np.random.default_rng(0)
    image = np.arange(4).reshape(2, 2)
    found = {tuple(RandomCrop.draw(rng, 2, 2)(image).ravel().tolist()) for _ in range(50)}
    assert found == {(0, 1, 2, 3), (1, 0, 3, 2)}


def test_crop_0_trains_on_the_whole_resized_image(images, folder):
    """--crop: `0 = none`."""
    dataset = TrainingImages(images, folder, RESIZE, 0, 0)
    assert [dataset[epoch, 0]['image'].shape for epoch in range(3)] == [(RESIZE, RESIZE, 3)] * 3


def test_image_and_mask_get_the_same_crop_and_flip(tmp_path):
    """Image and mask of 8 x 8 say the same at each position: a random bit. In the image it is
    red 255 or 0, in the mask CAM 255 (foreground) or 0 (background). No resizing."""
    bits = np.random.default_rng(3).integers(0, 2, (8, 8), dtype=np.uint8)
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 2] = 255 * bits  # red, in BGR
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[..., 0] = 255 * bits
    write_png(tmp_path / 'x.jpg', image)
    write_png(tmp_path / 'masks' / 'x.png', mask)
    dataset = TrainingMasks(ImageList(PackedNames(['x.jpg']), np.array([0]), None), tmp_path,
                            8, 5, 0, tmp_path / 'masks')
    seen = set()
    for epoch in range(40):
        item = dataset[epoch, 0]
        np.testing.assert_array_equal(item['image'][..., 0] == 255, item['foreground'])
        assert item['weight'].all()
        seen.add(item['foreground'].tobytes())
    assert len(seen) > 20


def test_masks_are_resized_by_nearest_neighbour(tmp_path):
    """A mask of 0 and 255 alone, enlarged: a linear resize would leave a conflict region."""
    write_png(tmp_path / 'x.jpg', np.zeros((7, 7, 3), np.uint8))
    mask = np.zeros((7, 7, 3), np.uint8)
    mask[2:4, 2:4, 0] = 255
    write_png(tmp_path / 'masks' / 'x.png', mask)
    dataset = TrainingMasks(ImageList(PackedNames(['x.jpg']), np.array([0]), None), tmp_path,
                            32, 32, 0, tmp_path / 'masks')
    item = dataset[0, 0]
    assert item['weight'].all()
    assert item['foreground'].any()
    assert not item['foreground'].all()


def test_a_missing_mask_is_named(images, folder, tmp_path):
    dataset = TrainingMasks(images, folder, RESIZE, CROP, 0, tmp_path)
    with pytest.raises(InputError, match=r'a/1\.png'):
        dataset[0, 0]


def test_a_missing_image_is_named(images, tmp_path):
    with pytest.raises(InputError, match=r'a/1\.jpg'):
        TrainingImages(images, tmp_path, RESIZE, CROP, 0)[0, 0]
    with pytest.raises(InputError, match=r'a/2\.JPEG'):
        ImagesToTest(images, tmp_path, RESIZE)[1]


def test_a_test_item_is_the_centre_crop_with_the_size_of_the_original(images, folder):
    """32 to 24: from 4 to 28."""
    dataset = ImagesToTest(images, folder, RESIZE, CROP)
    assert len(dataset) == 3
    for index, size in enumerate(SIZES):
        item = dataset[index]
        whole = resize(read_image(folder / NAMES[index]), (RESIZE, RESIZE))
        np.testing.assert_array_equal(item['image'], whole[4:28, 4:28])
        assert tuple(item['size']) == size
        assert item['index'] == index
        assert 'whole' not in item


def test_a_test_item_without_a_crop_is_the_whole_image(images, folder):
    item = ImagesToTest(images, folder, RESIZE)[0]
    np.testing.assert_array_equal(item['image'],
                                  resize(read_image(folder / NAMES[0]), (RESIZE, RESIZE)))


def test_whole_is_the_image_itself_resized_without_a_crop(images, folder):
    item = ImagesToTest(images, folder, RESIZE, CROP, whole=20)[1]
    assert item['image'].shape == (CROP, CROP, 3)
    np.testing.assert_array_equal(item['whole'], resize(read_image(folder / NAMES[1]), (20, 20)))


@pytest.mark.parametrize(('name', 'expected'), [
    ('001.Albatross/Albatross_1.jpg', 'masks/001.Albatross/Albatross_1.png'),
    ('n01440764/n01440764_18.JPEG', 'masks/n01440764/n01440764_18.png'),
    ('a.jpg.jpg', 'masks/a.jpg.png'),
    ('jpg.b/JPEG.jpg', 'masks/jpg.b/JPEG.png'),
])
def test_a_mask_has_its_images_name_but_ends_in_png(name, expected):
    assert mask_path(Path('masks'), name) == Path(expected)
