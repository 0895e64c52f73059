"""Data sets: items that depend on nothing but (seed, epoch, index)."""

from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from utils.data.datasets import EvalImages, TrainImages, TrainMasks
from utils.data.images import read_image, resize
from utils.data.lists import ImageList
from utils.data.loader import EpochSampler, TrainLoader
from utils.errors import InputError
from utils.localization.boxes import CentreCrop

NAMES = ['a/1.jpg', 'a/2.JPEG', 'b/3.jpg']
SIZES = [(40, 60), (50, 30), (33, 33)]  # height, width
LABELS = [2, 0, 1]
RESIZE, CROP = 32, 24


def write_png(path, image):
    """PNG whatever the name: what a file holds tells its format, not its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode('.png', image)[1].tobytes())


def image_list(names, folder, labels=None):
    return ImageList(np.array(names), np.array(labels or [0] * len(names)), None, Path(folder))


def crop_and_flip(resize, crop, *more):
    return A.Compose([A.Resize(resize, resize, interpolation=cv2.INTER_LINEAR),
                      A.RandomCrop(crop, crop), A.HorizontalFlip(p=0.5), *more])


@pytest.fixture(scope='module')
def images(folder):
    return image_list(NAMES, folder, LABELS)


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
    def call(kind, seed=0, transform=None):
        extra = [folder / 'mask'] if kind is TrainMasks else []
        return kind(images, transform or crop_and_flip(RESIZE, CROP), seed, *extra)

    return call


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


KEYS = [(epoch, index) for epoch in range(3) for index in range(3)]
kinds = pytest.mark.parametrize('kind', [TrainImages, TrainMasks])


@kinds
def test_an_item_is_the_same_in_any_order_and_from_any_object(make, kind):
    dataset = make(kind)
    forwards = {key: dataset[key] for key in KEYS}
    for key in reversed(KEYS):
        assert same(dataset[key], forwards[key])
        assert same(make(kind)[key], forwards[key])


@kinds
def test_an_item_is_the_same_in_a_worker_process(make, kind):
    dataset = make(kind)
    loader = DataLoader(dataset, sampler=KEYS, batch_size=None, num_workers=2)
    for key, item in zip(KEYS, loader, strict=True):
        assert same({name: np.asarray(value) for name, value in item.items()}, dataset[key])


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
    write_png(tmp_path / 'x.jpg', np.arange(75, dtype=np.uint8).reshape(5, 5, 3))
    dataset = TrainImages(image_list(['x.jpg'], tmp_path), crop_and_flip(5, 3), 0)
    draws = {}
    for epoch in range(2000):
        image = dataset[epoch, 0]['image'][..., 0].astype(int)
        flipped = image[0, 0] > image[0, 2]
        corner = int(image.min())
        draws.setdefault(corner, []).append(flipped)
    assert len(draws) == 9
    for flips in draws.values():
        assert abs(sum(flips) - len(flips) / 2) < 10 * np.sqrt(len(flips) / 4)
        assert len(flips) > 100


def test_augmentations_that_are_added_draw_independently(tmp_path):
    """Each fires in half of the epochs; were their streams the same, they would agree always."""
    write_png(tmp_path / 'x.jpg', np.arange(75, dtype=np.uint8).reshape(5, 5, 3))
    transform = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    dataset = TrainImages(image_list(['x.jpg'], tmp_path), transform, 0)
    seen = [dataset[epoch, 0]['image'].tobytes() for epoch in range(200)]
    counts = [seen.count(image) for image in set(seen)]
    assert len(counts) == 4
    assert min(counts) > 20


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
    dataset = TrainMasks(image_list(['x.jpg'], tmp_path), crop_and_flip(8, 5), 0,
                         tmp_path / 'masks')
    seen = set()
    for epoch in range(40):
        item = dataset[epoch, 0]
        np.testing.assert_array_equal(item['image'][..., 0] == 255, item['foreground'])
        assert item['valid'].all()
        seen.add(item['foreground'].tobytes())
    assert len(seen) > 20


def test_masks_are_resized_by_nearest_neighbour(tmp_path):
    """A mask of 0 and 255 alone, enlarged: a linear resize would leave a conflict region."""
    write_png(tmp_path / 'x.jpg', np.zeros((7, 7, 3), np.uint8))
    mask = np.zeros((7, 7, 3), np.uint8)
    mask[2:4, 2:4, 0] = 255
    write_png(tmp_path / 'masks' / 'x.png', mask)
    dataset = TrainMasks(image_list(['x.jpg'], tmp_path), crop_and_flip(32, 32), 0,
                         tmp_path / 'masks')
    item = dataset[0, 0]
    assert item['valid'].all()
    assert item['foreground'].any()
    assert not item['foreground'].all()


def test_a_mask_of_another_size_is_refused(tmp_path):
    write_png(tmp_path / 'x.jpg', np.zeros((7, 9, 3), np.uint8))
    write_png(tmp_path / 'masks' / 'x.png', np.zeros((9, 7, 3), np.uint8))
    dataset = TrainMasks(image_list(['x.jpg'], tmp_path), crop_and_flip(8, 8), 0,
                         tmp_path / 'masks')
    with pytest.raises(InputError, match=r'x\.png is 7 x 9 pixels, but its image 9 x 7'):
        dataset[0, 0]


@kinds
@pytest.mark.parametrize(('steps', 'named'), [
    ((A.Normalize(),), r'float32 from -.*leave out A\.Normalize'),
    ((A.Normalize(), A.HorizontalFlip()), r'leave out A\.Normalize'),
    ((A.ToTensorV2(),), r'a Tensor.*leave out A\.ToTensorV2'),
    ((A.ToGray(1, p=1),), r'the shape \(24, 24.*leave out A\.ToGray'),
    ((A.FromFloat(max_value=1, dtype='uint16'),), 'leave out A.FromFloat'),
])
def test_a_step_that_training_takes_itself_is_named(make, kind, steps, named):
    if named.endswith('FromFloat'):
        steps = (A.ToFloat(max_value=255), *steps)
    with pytest.raises(InputError, match=named):
        make(kind, transform=crop_and_flip(RESIZE, CROP, *steps))[0, 0]


@kinds
def test_floats_between_0_and_1_are_images_too(make, kind):
    item = make(kind, transform=crop_and_flip(RESIZE, CROP, A.ToFloat(max_value=255)))[0, 0]
    assert item['image'].dtype == np.float32


@pytest.mark.parametrize('workers', [0, 1])
def test_a_last_step_of_random_size_is_named(make, workers):
    transform = A.Compose([A.Resize(RESIZE, RESIZE), A.RandomScale((-0.5, 0.5), p=1)])
    dataset = make(TrainImages, transform=transform)
    loader = TrainLoader(dataset, EpochSampler(3, 3, 0), workers, False)
    with pytest.raises(InputError, match=r'several sizes .*after A\.RandomScale'):
        list(loader)


def test_lack_of_memory_in_a_transform_is_told(make):
    def fail(image, **_):
        raise MemoryError

    transform = A.Compose([A.Lambda(image=fail, p=1)])
    with pytest.raises(InputError, match='out of memory'):
        make(TrainImages, transform=transform)[0, 0]


def test_a_missing_mask_is_named(images, tmp_path):
    dataset = TrainMasks(images, crop_and_flip(RESIZE, CROP), 0, tmp_path)
    with pytest.raises(InputError, match=r'a/1\.png'):
        dataset[0, 0]


def test_a_missing_image_is_named(tmp_path):
    images = image_list(NAMES, tmp_path)
    with pytest.raises(InputError, match=r'a/1\.jpg'):
        TrainImages(images, crop_and_flip(RESIZE, CROP), 0)[0, 0]
    with pytest.raises(InputError, match=r'a/2\.JPEG'):
        EvalImages(images, image=CentreCrop(RESIZE))[1]


def test_a_test_item_is_the_centre_crop_with_the_size_of_the_original(images, folder):
    """32 to 24: from 4 to 28."""
    dataset = EvalImages(images, image=CentreCrop(RESIZE, CROP))
    assert len(dataset) == 3
    for index, size in enumerate(SIZES):
        item = dataset[index]
        whole = resize(np.float32(read_image(folder / NAMES[index])) / 255, (RESIZE, RESIZE))
        np.testing.assert_allclose(item['image'], whole[4:28, 4:28], atol=1e-6)
        assert item['image'].dtype == np.float32
        assert tuple(item['size']) == size
        assert item['index'] == index
        assert 'whole' not in item


def test_test_items_are_not_rounded_to_grey_levels(images, folder):
    item = EvalImages(images, image=CentreCrop(20))[0]
    levels = 255 * item['image']
    assert np.abs(levels - np.round(levels)).max() > 0.4


def test_views_of_an_image(images):
    dataset = EvalImages(images, image=CentreCrop(RESIZE, CROP), whole=CentreCrop(20))
    item = dataset[1]
    assert item['image'].shape == (CROP, CROP, 3)
    assert item['whole'].shape == (20, 20, 3)


def test_inputs_of_whole_pictures_are_the_authors(golden):
    """Every fourth pixel of the normalised 256 x 256 input, and of its centre crop."""
    pictures = golden('pictures')
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    for k in range(4):
        for name, crop in (('cam_input', 0), ('seg_input', 224)):
            image = CentreCrop(256, crop).view(pictures[f'image{k}'])
            found = ((image - mean) / std)[::4, ::4].transpose(2, 0, 1)
            np.testing.assert_allclose(found, pictures[f'{name}{k}'], atol=1e-5)


@pytest.mark.parametrize(('name', 'expected'), [
    ('001.Albatross/Albatross_1.jpg', 'masks/001.Albatross/Albatross_1.png'),
    ('n01440764/n01440764_18.JPEG', 'masks/n01440764/n01440764_18.png'),
    ('a.jpg.jpg', 'masks/a.jpg.png'),
    ('jpg.b/JPEG.jpg', 'masks/jpg.b/JPEG.png'),
])
def test_a_mask_has_its_images_name_but_ends_in_png(name, expected):
    assert image_list([name], 'images').mask_path(Path('masks'), 0) == Path(expected)
