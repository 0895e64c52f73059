"""Data sets: items that depend on nothing but (seed, epoch, index); the order of training."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from torch.utils.data import DataLoader

from utils.boxes import CentreCrop
from utils.datasets import TrainBatches, TrainImages, TrainMasks, train_transform
from utils.images import read_image, resize
from utils.lists import ImageList

NAMES = ['a/1.jpg', 'a/2.JPEG', 'b/3.jpg']
SIZES = [(40, 60), (50, 30), (33, 33)]  # height, width
LABELS = [2, 0, 1]
RESIZE, CROP = 32, 24


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Noise images and, in mask/, noise masks."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for name, size in zip(NAMES, SIZES, strict=True):
        for path in (root / name, root / 'mask' / Path(name).with_suffix('.png')):
            write_image(path, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return root


@pytest.fixture(scope='module')
def images(folder):
    return ImageList(np.array(NAMES), np.array(LABELS), None, folder)


@pytest.fixture(scope='module')
def make(images, folder):
    """make(kind) -> a fresh training data set."""
    def call(kind):
        extra = {'mask_folder': folder / 'mask'} if kind is TrainMasks else {}
        return kind(images, train_transform(RESIZE, CROP), 0, **extra)

    return call


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


KEYS = [(epoch, index) for epoch in range(3) for index in range(3)]


@pytest.mark.parametrize('kind', [TrainImages, TrainMasks])
def test_an_item_is_the_same_in_any_order_and_process(make, kind):
    dataset = make(kind)
    loader = DataLoader(make(kind), sampler=KEYS, batch_size=None, num_workers=2)
    for key, item in reversed(list(zip(KEYS, loader, strict=True))):
        assert same({name: np.asarray(value) for name, value in item.items()}, dataset[key])
        assert same(make(kind)[key], dataset[key])


def test_an_item_is_a_part_of_the_resized_image_or_its_mirror_image(make, folder):
    dataset = make(TrainImages)
    assert len(dataset) == 3
    flips = set()
    for epoch, index in KEYS:
        whole = resize(read_image(folder / NAMES[index]), (RESIZE, RESIZE))
        item = dataset[epoch, index]
        parts = [whole[top:top + CROP, left:left + CROP] for top in range(9) for left in range(9)]
        found = [flip for flip in (1, -1) for part in parts
                 if np.array_equal(item['image'], part[:, ::flip])]
        assert len(found) == 1
        flips.add(found[0])
        assert item['label'] == LABELS[index]
    assert flips == {1, -1}


def test_image_and_mask_get_the_same_crop_and_flip(tmp_path):
    """Image and mask of 8 x 8 say the same at each position: a random bit. In the image it is
    red 255 or 0, in the mask CAM 255 (foreground) or 0 (background). No resizing."""
    bits = np.random.default_rng(3).integers(0, 2, (8, 8), dtype=np.uint8)
    image, mask = np.zeros((2, 8, 8, 3), np.uint8)
    image[..., 2] = mask[..., 0] = 255 * bits  # red, in BGR
    write_image(tmp_path / 'x.jpg', image)
    write_image(tmp_path / 'masks' / 'x.png', mask)
    images = ImageList(np.array(['x.jpg']), np.array([0]), None, tmp_path)
    dataset = TrainMasks(images, train_transform(8, 5), 0, mask_folder=tmp_path / 'masks')
    seen = set()
    for epoch in range(40):
        item = dataset[epoch, 0]
        np.testing.assert_array_equal(item['image'][..., 0] == 255, item['foreground'])
        assert item['valid'].all()
        seen.add(item['foreground'].tobytes())
    assert len(seen) > 20


def test_inputs_of_whole_pictures_are_the_authors(golden):
    """Every fourth pixel of the normalised 256 x 256 input, and of its centre crop."""
    pictures = golden('pictures')
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    for k in range(4):
        for name, crop in (('cam_input', 0), ('seg_input', 224)):
            image = CentreCrop(256, crop).view(pictures[f'image{k}'])
            found = ((image - mean) / std)[::4, ::4].transpose(2, 0, 1)
            np.testing.assert_allclose(found, pictures[f'{name}{k}'], atol=1e-5)


# ---------------------------------------------------------------- the order of training


def batches(count, size, seed=0, epochs=1, **more):
    found = TrainBatches(count, size, seed, **more)
    found.stop = epochs * found.per_epoch
    return found


@pytest.mark.parametrize(('count', 'world_size', 'sizes'), [
    (9, 1, [4, 4]), (8, 1, [4, 4]), (10, 1, [4, 4, 2]), (10, 2, [4, 4]), (12, 2, [4, 4, 4]),
    (3, 1, [3])])
def test_a_last_batch_of_one_image_for_a_rank_is_left_out_and_no_other(count, world_size, sizes):
    """Batch norm cannot train on it."""
    found = batches(count, 4, world_size=world_size)
    assert [found.size(step) for step in range(len(found))] == sizes


def test_batches_continue_from_any_step_and_ranks_share_each():
    whole = list(batches(11, 4, epochs=3))
    for start in range(len(whole)):
        assert list(batches(11, 4, epochs=3, start=start)) == whole[start:]
    shares = [list(batches(11, 4, rank=rank, world_size=2, epochs=3)) for rank in range(2)]
    for batch, *parts in zip([batch for batch in whole if len(batch) >= 4], *shares, strict=False):
        assert sorted(sum(parts, [])) == sorted(batch)
