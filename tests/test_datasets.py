"""Data sets: items that depend on nothing but (seed, epoch, index); the order of training."""

from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
from conftest import complaint, write_image
from torch.utils.data import DataLoader

from utils.boxes import CentreCrop
from utils.datasets import (
    EvalImages,
    TrainBatches,
    TrainImages,
    TrainMasks,
    load_batches,
    train_transform,
)
from utils.images import read_image, resize
from utils.lists import ImageList

NAMES = ['a/1.jpg', 'a/2.JPEG', 'b/3.jpg']
SIZES = [(40, 60), (50, 30), (33, 33)]  # height, width
LABELS = [2, 0, 1]
RESIZE, CROP = 32, 24


def image_list(names, folder, labels=None):
    return ImageList(np.array(names), np.array(labels or [0] * len(names)), None, Path(folder))


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
    return image_list(NAMES, folder, LABELS)


@pytest.fixture(scope='module')
def make(images, folder):
    """make(kind, seed=0) -> a fresh training data set."""
    def call(kind, seed=0):
        extra = {'mask_folder': folder / 'mask'} if kind is TrainMasks else {}
        return kind(images, train_transform(RESIZE, CROP), seed, **extra)

    return call


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


KEYS = [(epoch, index) for epoch in range(3) for index in range(3)]
kinds = pytest.mark.parametrize('kind', [TrainImages, TrainMasks])


@kinds
def test_an_item_is_the_same_in_any_order_and_process(make, kind):
    dataset = make(kind)
    loader = DataLoader(make(kind), sampler=KEYS, batch_size=None, num_workers=2)
    for key, item in reversed(list(zip(KEYS, loader, strict=True))):
        assert same({name: np.asarray(value) for name, value in item.items()}, dataset[key])
        assert same(make(kind)[key], dataset[key])


@kinds
def test_epochs_indices_and_seeds_draw_differently(make, kind):
    dataset, other = make(kind), make(kind, seed=1)
    items = [dataset[epoch, 0]['image'].tobytes() for epoch in range(20)]
    assert len(set(items)) >= 15
    assert sum(items[e] != other[e, 0]['image'].tobytes() for e in range(20)) >= 15


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


def test_crops_reach_all_edges_and_half_are_flipped(tmp_path):
    """5 to 3: 0, 1, 2 for top and left; half of 2,000 draws are flipped (within 10 sigma). Crop
    and flip are independent: each corner is flipped as often as not."""
    write_image(tmp_path / 'x.jpg', np.arange(75, dtype=np.uint8).reshape(5, 5, 3))
    dataset = TrainImages(image_list(['x.jpg'], tmp_path), train_transform(5, 3), 0)
    draws = {}
    for epoch in range(2000):
        image = dataset[epoch, 0]['image'][..., 0].astype(int)
        draws.setdefault(int(image.min()), []).append(image[0, 0] > image[0, 2])
    assert len(draws) == 9
    for flips in draws.values():
        assert abs(sum(flips) - len(flips) / 2) < 10 * np.sqrt(len(flips) / 4)
        assert len(flips) > 100


def test_augmentations_that_are_added_draw_independently(tmp_path):
    """Each fires in half of the epochs; were their streams the same, they would agree always."""
    write_image(tmp_path / 'x.jpg', np.arange(75, dtype=np.uint8).reshape(5, 5, 3))
    transform = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    dataset = TrainImages(image_list(['x.jpg'], tmp_path), transform, 0)
    seen = [dataset[epoch, 0]['image'].tobytes() for epoch in range(200)]
    counts = [seen.count(image) for image in set(seen)]
    assert len(counts) == 4
    assert min(counts) > 20


def masked(tmp_path, image, mask, transform):
    write_image(tmp_path / 'x.jpg', image)
    write_image(tmp_path / 'masks' / 'x.png', mask)
    return TrainMasks(image_list(['x.jpg'], tmp_path), transform, 0,
                      mask_folder=tmp_path / 'masks')


def test_image_and_mask_get_the_same_crop_and_flip(tmp_path):
    """Image and mask of 8 x 8 say the same at each position: a random bit. In the image it is
    red 255 or 0, in the mask CAM 255 (foreground) or 0 (background). No resizing."""
    bits = np.random.default_rng(3).integers(0, 2, (8, 8), dtype=np.uint8)
    image, mask = np.zeros((2, 8, 8, 3), np.uint8)
    image[..., 2] = mask[..., 0] = 255 * bits  # red, in BGR
    dataset, seen = masked(tmp_path, image, mask, train_transform(8, 5)), set()
    for epoch in range(40):
        item = dataset[epoch, 0]
        np.testing.assert_array_equal(item['image'][..., 0] == 255, item['foreground'])
        assert item['valid'].all()
        seen.add(item['foreground'].tobytes())
    assert len(seen) > 20


def test_masks_are_resized_by_nearest_neighbour(tmp_path):
    """A mask of 0 and 255 alone, enlarged: a linear resize would leave a conflict region."""
    mask = np.zeros((7, 7, 3), np.uint8)
    mask[2:4, 2:4, 0] = 255
    item = masked(tmp_path, np.zeros((7, 7, 3), np.uint8), mask, train_transform(32, 0))[0, 0]
    assert item['valid'].all()
    assert 0 < item['foreground'].mean() < 1


def test_missing_images_and_masks_and_masks_of_another_size_are_named(tmp_path, images):
    dataset = masked(tmp_path, np.zeros((7, 9, 3), np.uint8), np.zeros((9, 7, 3), np.uint8),
                     train_transform(8, 0))
    assert 'x.png is 7 x 9 pixels, but its image 9 x 7' in complaint(dataset.__getitem__, (0, 0))
    dataset = TrainMasks(images, train_transform(8, 0), 0, mask_folder=tmp_path)
    assert 'a/1.png does not exist' in complaint(dataset.__getitem__, (0, 0))
    elsewhere = image_list(NAMES, tmp_path)
    for dataset, key in ((TrainImages(elsewhere, train_transform(8, 0), 0), (0, 1)),
                         (EvalImages(elsewhere, {'image': CentreCrop(8)}), 1)):
        assert 'a/2.JPEG' in complaint(dataset.__getitem__, key)


def test_the_next_image_takes_the_place_of_one_that_cannot_be_decoded(tmp_path, folder):
    names = ['0.jpg', 'bad.jpg', 'worse.jpg', '3.jpg']
    for name in names:
        (tmp_path / name).write_bytes(b'no image')
    for name in ('0.jpg', '3.jpg'):
        write_image(tmp_path / name, np.full((5, 5, 3), int(name[0]), np.uint8))
    images = image_list(names, tmp_path, [0, 1, 2, 3])
    dataset = TrainImages(images, train_transform(5, 0), 0, skip_bad=True)
    item = dataset[0, 1]
    assert (item['image'].max(), item['label'], item['index'], item['skipped']) == (3, 3, 1, 2)
    assert dataset[0, 3]['skipped'] == 0
    assert 'bad.jpg' in complaint(TrainImages(images, train_transform(5, 0), 0).__getitem__, (0, 1))
    for name in ('0.jpg', '3.jpg'):
        (tmp_path / name).write_bytes(b'no image')
    assert 'none of the images' in complaint(dataset.__getitem__, (0, 0))


def test_a_test_item_is_the_centre_crop_of_float_pixels_in_each_view(images, folder):
    """32 to 24: from 4 to 28. Views are not rounded to grey levels."""
    dataset = EvalImages(images, {'image': CentreCrop(RESIZE, CROP), 'whole': CentreCrop(20)})
    assert len(dataset) == 3
    for index, size in enumerate(SIZES):
        item = dataset[index]
        whole = resize(np.float32(read_image(folder / NAMES[index])) / 255, (RESIZE, RESIZE))
        np.testing.assert_allclose(item['image'], whole[4:28, 4:28], atol=1e-6)
        assert item['image'].dtype == np.float32
        assert (tuple(item['size']), item['index'], item['label']) == (size, index, LABELS[index])
        assert item['whole'].shape == (20, 20, 3)
        levels = 255 * item['whole']
        assert np.abs(levels - np.round(levels)).max() > 0.4


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


def test_every_image_once_an_epoch_in_another_order_each():
    found = list(batches(10, 4, seed=3, epochs=2))
    assert [len(batch) for batch in found] == [4, 4, 2] * 2
    orders = [[key for batch in part for key in batch] for part in (found[:3], found[3:])]
    assert [sorted(order) for order in orders] == [[(epoch, k) for k in range(10)]
                                                   for epoch in range(2)]
    assert [k for _, k in orders[0]] != [k for _, k in orders[1]]
    assert found != list(batches(10, 4, seed=4, epochs=2))


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


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_are_read_in_order_with_their_errors(make, workers, tmp_path):
    """Errors arrive as they were raised, also from processes."""
    dataset = make(TrainImages)
    found = list(load_batches(dataset, batches(3, 3), workers, pin_memory=False))
    assert [len(batch['image']) for batch in found] == [3]
    assert found[0]['errors'] == []
    assert sorted(found[0]['label'].tolist()) == [0, 1, 2]
    missing = TrainImages(image_list(NAMES, tmp_path), train_transform(8, 0), 0)
    batch, = load_batches(missing, batches(3, 3), workers, pin_memory=False)
    assert ['no image at' in str(error) for error in batch['errors']] == [True] * 3


def test_opencv_leaves_the_cores_to_the_other_processes():
    from utils.device import init_device

    init_device('cpu', 0)
    assert cv2.getNumThreads() == 1
