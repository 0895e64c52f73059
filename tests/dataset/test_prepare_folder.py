"""dataset/prepare_folder.py: class folders become the CUB layout, or a line says why not."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

from prepare_folder import Prepared, mask_box, read_mask, split

from utils.data.lists import read_cub_list

SCRIPT = 'dataset/prepare_folder.py'


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of four images, 30 x 20 pixels, no two alike."""
    for number in range(8):
        save(tmp_path / 'photos' / 'ab'[number % 2] / f'{number}.png', number)
    return tmp_path / 'photos'


def save(path: Path, content: int | np.ndarray, **options) -> Path:
    if isinstance(content, int):
        content = np.full((20, 30, 3), content, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(content).save(path, **options)
    return path


def rectangle(value: int = 255, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[5:9, 3:10] = value
    return mask


@pytest.fixture
def prepare(run_script, tmp_path):
    """prepare(photos, ...) -> (exit code, stdout, stderr); the result is in tmp_path/out."""
    return lambda folder, *more: run_script(SCRIPT, folder, '--out', tmp_path / 'out', *more)


def fails(result: tuple[int, str, str], *words: str, out: Path) -> None:
    code, _, err = result
    assert code == 2
    assert err.startswith('error: ')
    assert err.count('\n') == 1
    assert all(word in err for word in words), err
    assert not out.exists()
    assert not list(out.parent.glob('.*'))


def lists(out: Path) -> tuple[dict[str, int], dict[str, int]]:
    return tuple(dict(zip(images.names.tolist(), images.labels.tolist(), strict=True))
                 for images in (read_cub_list(out / f'{name}.txt', 2) for name in ('train', 'val')))


# ---------------------------------------------------------------- the layout


def test_class_folders(photos, prepare, tmp_path):
    save(photos / 'b' / 'deep er' / "it's ünï.PNG", 99)
    code, out, err = prepare(photos, '--val', '0.25')
    assert (code, err) == (0, '')
    assert '2 classes, 7 training and 2 val images, no masks' in out
    train, val = lists(tmp_path / 'out')
    assert {**train, **val} == {**{f'a/{k}.png': 0 for k in (0, 2, 4, 6)},
                                **{f'b/{k}.png': 1 for k in (1, 3, 5, 7)},
                                "b/deep er/it's ünï.PNG": 1}
    for name in {**train, **val}:
        assert (tmp_path / 'out' / 'image' / name).samefile(photos / name)
    assert not (tmp_path / 'out' / 'segmentation').exists()
    assert not list(tmp_path.glob('.*'))


def test_the_split_depends_on_the_seed_alone(photos, run_script, tmp_path):
    def split_of(name, seed):
        run_script(SCRIPT, photos, '--out', tmp_path / name, '--seed', seed)
        return (tmp_path / name / 'val.txt').read_text()

    splits = [split_of(f'out{seed}{again}', seed) for seed in range(4) for again in range(2)]
    assert splits[::2] == splits[1::2]
    assert len(set(splits)) > 1


def test_without_val(photos, prepare, tmp_path):
    code, *_ = prepare(photos, '--val', 0)
    assert code == 0
    assert len((tmp_path / 'out' / 'train.txt').read_text().splitlines()) == 8
    assert not (tmp_path / 'out' / 'val.txt').exists()


def test_identical_files_are_on_one_side(photos, prepare, tmp_path):
    for number in range(6):
        save(photos / 'a' / f'copy{number}.png', 0)
    save(photos / 'b' / 'copy.png', 0)
    code, _, err = prepare(photos)
    assert code == 0
    assert '8 images are in several classes' in err
    sides = [{name for name in side if 'copy' in name or name == 'a/0.png'}
             for side in lists(tmp_path / 'out')]
    assert sorted(map(len, sides)) == [0, 8]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=40),
       st.floats(0, 0.99), st.integers(0, 99))
def test_split_of_any_images(images, share, seed):
    images = [Prepared(str(number), label, (), bytes([content]), False)
              for number, (label, content) in enumerate(images)]
    train, val = split(images, share, seed)
    assert sorted(train + val) == sorted(images)
    assert not {image.digest for image in train} & {image.digest for image in val}
    if len({image.digest for image in images}) == len(images):  # no copies: exact shares
        for label in {image.label for image in images}:
            count = sum(image.label == label for image in images)
            held_out = sum(image.label == label for image in val)
            assert held_out < count
            assert abs(held_out - share * count) <= 1
            assert held_out or count == 1 or not share


# ---------------------------------------------------------------- masks and boxes


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.bmp', '.jpg'])
def test_masks(photos, prepare, tmp_path, suffix):
    for file in photos.rglob('*.png'):
        save(tmp_path / 'masks' / file.parent.name / f'{file.stem}{suffix}', rectangle(),
             **({'quality': 100} if suffix == '.jpg' else {}))
    code, out, err = prepare(photos, '--masks', tmp_path / 'masks')
    assert code == 0, err
    assert '8 masks' in out
    images = read_cub_list(tmp_path / 'out' / 'train.txt', 2)
    assert all(boxes.tolist() == [[3, 5, 10, 9]] for boxes in images.boxes)
    written = cv2.imread(str(tmp_path / 'out' / 'segmentation' / 'a' / '0.png'), -1)
    assert np.array_equal(written, rectangle())


def palette_mask(*colours: int) -> Image.Image:
    image = Image.fromarray(rectangle(2), 'P')
    image.putpalette(colours)
    return image


@pytest.mark.parametrize('image', [
    rectangle(1), rectangle(3), rectangle() > 0, rectangle().astype(np.uint16) * 257,
    np.dstack([rectangle(), 0 * rectangle(), 0 * rectangle()]),
    np.dstack([rectangle()] * 3 + [np.full((20, 30), 255, np.uint8)]), 40 + rectangle(200),
    palette_mask(0, 0, 0, 128, 0, 0, 0, 0, 128), palette_mask(0, 0, 0, 9, 9, 9, 255, 255, 255),
], ids=['0 and 1', 'label', 'bool', '16 bits', 'red', 'RGBA', 'two grey levels', 'colours',
        'grey palette'])
def test_masks_of_any_kind(tmp_path, image):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(tmp_path / 'mask.png')
    assert np.array_equal(read_mask(tmp_path / 'mask.png'), rectangle() > 0)


@given(st.tuples(*[st.integers(0, 8)] * 2), st.tuples(*[st.integers(1, 8)] * 2))
def test_box_of_a_mask(corner, sides):
    (x, y), (width, height) = corner, sides
    mask = np.zeros((20, 20), bool)
    mask[y:y + height, x:x + width] = True
    assert mask_box(mask) == (x, y, x + width, y + height)


def test_boxes(photos, prepare, tmp_path):
    save(photos / 'a' / 'b "c".png', 50)
    rows = [f'{file.relative_to(photos)},1,2,10.5,12' for file in photos.rglob('?.png')]
    (tmp_path / 'boxes.csv').write_text('\n'.join(
        ['name,xmin,ymin,xmax,ymax', *rows, 'a/0.png,4,5,30,20', '"a/b ""c"".png",0,0,9,9']))
    code, _, err = prepare(photos, '--boxes', tmp_path / 'boxes.csv')
    assert (code, err) == (0, '')
    found = {}
    for name in ('train', 'val'):
        images = read_cub_list(tmp_path / 'out' / f'{name}.txt', 2)
        found |= dict(zip(images.names.tolist(), images.boxes, strict=True))
    assert found['a/0.png'].tolist() == [[1, 2, 10.5, 12], [4, 5, 30, 20]]
    assert found['b/1.png'].tolist() == [[1, 2, 10.5, 12]]
    assert found['a/b "c".png'].tolist() == [[0, 0, 9, 9]]


# ---------------------------------------------------------------- what is wrong


def test_bad_images_and_masks_are_counted(photos, prepare, tmp_path):
    masks = tmp_path / 'masks'
    for file in photos.rglob('*.png'):
        save(masks / file.relative_to(photos), rectangle())
    save(masks / 'a' / '0.png', rectangle(0))
    save(masks / 'b' / '1.png', rectangle(size=(30, 20)))
    (masks / 'b' / '3.png').write_text('no mask')
    (masks / 'a' / '2.png').unlink()
    for name in ('x', 'y'):
        (photos / 'a' / f'{name}.png').write_bytes(b'no image')
        save(masks / 'a' / f'{name}.png', rectangle())
    words = ['2 images: cannot be read (a/x.png, a/y.png)', '1 images: no mask (a/2.png)',
             'without foreground (a/0.png)', 'another size than the image (b/1.png)',
             'that cannot be read (b/3.png)']
    fails(prepare(photos, '--masks', masks), '--skip_bad', *words, out=tmp_path / 'out')
    code, out, err = prepare(photos, '--masks', masks, '--skip_bad')
    assert code == 0
    assert all(word in err for word in words)
    assert sum(map(len, lists(tmp_path / 'out'))) == 4
    assert '4 masks' in out


@pytest.mark.parametrize(('text', 'words'), [
    ('a/0.png,1,2,3', ['line 1', 'xmin']), ('a/0.png,1,2,x,4', ['line 1']),
    ('a/0.png,5,5,3,9', ['line 1', 'no area', 'width']), ('a/0.png,1,2,nan,4', ['no area']),
    ('a/9.png,1,2,3,4', ['line 1', "'a/9.png'"]), ('a/0.png,0,0,0.5,1', ['in pixels']),
    ('a/0.png,40,0,50,9', ['1 images: box outside the image (a/0.png)', '7 images: no box']),
    ('"a/0.png,1,2,3,4', ['CSV']),
])
def test_wrong_boxes(photos, prepare, tmp_path, text, words):
    (tmp_path / 'boxes.csv').write_text(text)
    fails(prepare(photos, '--boxes', tmp_path / 'boxes.csv'), *words, out=tmp_path / 'out')


@pytest.mark.parametrize(('name', 'words'), [
    ('a/x,y.png', ['a/x,y.png', 'comma']), ('a/x\ny.png', ['line break']), (' a/x.png', ['space']),
    ('a/0.jpg', ['a/0.jpg and a/0.png', 'share a mask']), ('a\\b/x.png', ['does not stay']),
])
def test_names_that_a_list_cannot_hold(photos, prepare, tmp_path, name, words):
    save(photos / name, 100)
    fails(prepare(photos), *words, out=tmp_path / 'out')


def test_missing_folders_and_classes(photos, prepare, tmp_path):
    out = tmp_path / 'out'
    fails(prepare(tmp_path / 'none'), 'no folder', out=out)
    fails(prepare(photos / 'a'), '0 class folders', out=out)
    fails(prepare(photos, '--masks', tmp_path / 'none'), '--masks', out=out)
    fails(prepare(photos, '--boxes', tmp_path / 'none'), '--boxes', out=out)
    (photos / 'c').mkdir()
    fails(prepare(photos), 'no image in', 'c: remove', out=out)


def test_existing_folders_are_kept(photos, run_script, prepare, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'precious').touch()
    code, _, err = prepare(photos)
    assert code == 2
    assert 'exists' in err
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['precious']
    code, _, err = run_script(SCRIPT, photos, '--out', photos / 'out')
    assert code == 2
    assert 'lies in the folder of the images' in err


def test_warnings(photos, prepare):
    """A class of one image, a rotated one, and files that are no images."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save(photos / 'c' / 'one.jpg', 77, exif=exif)
    (photos / 'a' / 'x.HEIC').touch()
    (photos / 'a' / '.hidden.png').touch()
    code, _, err = prepare(photos)
    assert code == 0
    assert '1 classes have a single image, which is in train.txt: c/one.jpg' in err
    assert '1 images have an EXIF rotation' in err
    assert '1 files are no images by their suffix, and ignored: .HEIC' in err
