"""dataset/prepare_folder.py: class folders become the CUB layout, or a line says why not."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

from prepare_folder import Sample, split

from utils.lists import cub_images

SCRIPT = 'dataset/prepare_folder.py'
NAMES = [f'{"ab"[number % 2]}/{number}.png' for number in range(8)]
BOX = [1, 2, 10.5, 12]


def save(path: Path, content: int | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, int):
        content = np.full((20, 30, 3), content, np.uint8)
    Image.fromarray(content).save(path)


def rectangle(value: int = 255, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[5:9, 3:10] = value
    return mask


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, with photos/: two classes of four images of 30 x 20 pixels."""
    for number, name in enumerate(NAMES):
        save(tmp_path / 'photos' / name, number)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def prepare(run_script):
    """prepare(...) -> (exit code, stdout, stderr); the result is in out/."""
    return lambda *more: run_script(SCRIPT, 'photos', '--out', 'out', *more)


def lists() -> dict[str, tuple[str, int, list]]:
    """{image: (its list, label, boxes)} in out/."""
    found = {}
    for name in ('train', 'val'):
        images = cub_images(Path('out'), f'{name}.txt', 9)
        for index in range(len(images)):
            boxes = [] if images.boxes is None else images.boxes[index].tolist()
            found[images.name(index)] = name, int(images.labels[index]), boxes
    return found


def masks(mask=None, name: str = '{0}.png') -> list[str]:
    """A mask of each image in masks/; the arguments that read them."""
    for image in map(Path, NAMES):
        own = name.format(image.with_suffix(''), image.stem)
        save(Path('masks', own), rectangle() if mask is None else mask)
    return ['--masks', 'masks']


def boxes(text: str, header: str = '', encoding: str = 'utf-8') -> list[str]:
    """A table with `text`, or a row of it for each image; the arguments that read it."""
    rows = [text.format(name) for name in NAMES] if '{}' in text else [text]
    Path('boxes.csv').write_bytes('\n'.join([header, *rows]).lstrip('\n').encode(encoding))
    return ['--boxes', 'boxes.csv']


def test_class_folders(prepare):
    save(Path('photos/b/deep er/it\'s ünï "x".PNG'), 99)
    code, out, err = prepare('--val', '0.25')
    assert (code, err) == (0, '')
    assert '2 classes, 7 training and 2 val images, no masks' in out
    found = lists()
    assert {name: label for name, (_, label, _) in found.items()} == {
        name: 'ab'.index(name[0]) for name in [*NAMES, 'b/deep er/it\'s ünï "x".PNG']}
    assert all(Path('out/image', name).samefile(Path('photos', name)) for name in found)
    assert sorted(os.listdir()) == ['out', 'photos']


def test_system_folders_are_left_out_links_followed_and_loose_files_counted(prepare, folder):
    for name in ('@eaDir', '.thumbnails', '__MACOSX', '$RECYCLE.BIN', 'lost+found'):
        save(Path('photos', name, 'thumb.jpg'), 200)
        save(Path('photos/a', name, '0.jpg'), 201)
    save(Path('elsewhere/c1.png'), 100)
    Path('photos/c').symlink_to(folder / 'elsewhere')
    save(Path('more/a9.png'), 101)
    Path('photos/a/more').symlink_to(folder / 'more')
    save(Path('photos/loose.jpg'), 102)
    Path('photos/a/x.HEIC').touch()
    code, out, err = prepare()
    assert (code, '3 classes' in out) == (0, True), err
    assert sorted(lists()) == sorted([*NAMES, 'a/more/a9.png', 'c/c1.png'])
    assert '2 files are no images in class folders, and left out: loose.jpg, x.HEIC' in err


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=40),
       st.floats(0, 0.99), st.integers(0, 99))
def test_split_of_any_images(images, share, seed):
    images = [Sample(Path(), str(number), label, digest=bytes([content]))
              for number, (label, content) in enumerate(images)]
    train, val = split(images, share, seed)
    assert sorted(train + val) == sorted(images)
    assert not {image.digest for image in train} & {image.digest for image in val}
    assert {image.label for image in train} == {image.label for image in images}
    if len({image.digest for image in images}) == len(images):  # no copies: exact shares
        for label in {image.label for image in images}:
            count = sum(image.label == label for image in images)
            held_out = sum(image.label == label for image in val)
            assert abs(held_out - share * count) <= 1
            assert held_out or count == 1 or not share


@pytest.mark.parametrize(('mask', 'name'), [
    (rectangle(1), '{0}.png'), (np.repeat(np.repeat(rectangle(), 2, 0), 2, 1), '{0}_mask.png'),
    (np.dstack([np.full((20, 30, 3), 7, np.uint8), rectangle()]), '{1}.png'),
    (rectangle(), '{0}.TIF'),
], ids=['0 and 1', 'twice the size', 'alpha', 'TIFF'])
def test_masks_of_any_kind_and_name(prepare, mask, name):
    code, out, err = prepare(*masks(mask, name))
    assert (code, '8 masks' in out) == (0, True), err
    assert [found for _, _, found in lists().values()] == [[[3, 5, 10, 9]]] * 8
    assert np.array_equal(np.array(Image.open('out/segmentation/a/0.png')), rectangle())


@pytest.mark.parametrize('table', [
    ('{},1,2,10.5,12',), ('{}, 1, 2, 10.5, 12', 'name,xmin,ymin,xmax,ymax', 'utf-8-sig')])
def test_boxes(prepare, table):
    code, _, err = prepare(*boxes(*table))
    assert (code, err) == (0, '')
    assert [found for _, _, found in lists().values()] == [[BOX]] * 8


def test_several_boxes_file_names_and_accents(prepare):
    save(Path('photos/a/caf\u00e9.png'), 50)
    rows = [*(f'{name},1,2,10.5,12' for name in NAMES), '0.png,4,5,30,20',
            'a/cafe\u0301.png,0,0,9,9']
    code, _, err = prepare(*boxes('\n'.join([*rows, 'a/9.png,1,2,3,4'])))
    assert (code, '1 names fit no image, or several: a/9.png' in err) == (0, True)
    found = {name: boxes for name, (_, _, boxes) in lists().items()}
    assert found['a/0.png'] == [BOX, [4, 5, 30, 20]]
    assert found['b/1.png'] == [BOX]
    assert found['a/caf\u00e9.png'] == [[0, 0, 9, 9]]


def test_inverted_masks_are_suspected(prepare):
    code, _, err = prepare(*masks(255 - rectangle()))
    assert code == 0
    assert '8 of 8 masks touch all four borders' in err


def rename(*names: str) -> None:
    """Other images instead of those in photos/."""
    shutil.rmtree('photos')
    for number, name in enumerate(names):
        save(Path('photos', name), number)


def damage(*names: str) -> list[str]:
    for name in names:
        Path('photos', name).write_bytes(b'no image')
    return ['--skip_bad']


def two_masks() -> list[str]:
    save(Path('masks/a/0_mask.tif'), rectangle())
    return masks()


def rotten_masks() -> list[str]:
    arguments = masks()
    save(Path('masks/a/0.png'), rectangle(0))
    Path('masks/a/2.png').unlink()
    damage('b/1.png')
    return arguments


BAD = [
    (lambda: rename('train/a/1.png', 'train/b/2.png', 'val/a/3.png'),
     ['the folders train, val', '--val 0']),
    (lambda: rename('images/a/1.png', 'masks/a/1.png'), ['images, masks', '--masks']),
    (lambda: rename('a/1.png'), ['1 class folders', '2 or more']),
    (lambda: Path('photos/c').mkdir(), ['1 of 3 classes have no usable image', 'c']),
    (lambda: shutil.rmtree('photos'), ['photos', 'No such file']),
    (lambda: ['--masks', 'photos/a'], ['photos/a', 'move it out']),
    (lambda: save(Path('photos/a/x,y.png'), 9), ['a/x,y.png', 'comma']),
    (lambda: save(Path('photos/a/0.jpg'), 9), ['a/0.jpg and a/0.png', 'share a mask']),
    (lambda: save(Path('photos/a/0_mask.png'), 9), ['a/0_mask.png', '--masks']),
    (lambda: damage(*NAMES[::2]), ['1 of 2 classes have no usable image']),
    (lambda: masks(np.where(rectangle(), 1, 2).astype(np.uint8)), ['the values 1, 2', 'trimaps']),
    (lambda: masks(rectangle(size=(30, 20))), ['20 x 30 pixels', '30 x 20', 'turned']),
    (lambda: masks(name='zebra.png'), ['8 of 8 images', 'a/0.png: it has 0 masks']),
    (two_masks, ['a/0.png: it has 2 masks']),
    (rotten_masks, ['3 of 8 images', 'without foreground', 'a/2.png: it has 0 masks', 'b/1.png']),
    (lambda: boxes('a/0.png,0,1,2,3,4'), ['line 1', "'0 1 2 3 4'"]),
    (lambda: boxes('{},1,2,3,4', 'name,x,y,width,height'), ['line 1', "'x y width height'"]),
    (lambda: boxes('{},0,0,0.5,1'), ['0 ... 1', 'YOLO', 'multiply']),
    (lambda: boxes('{},40,0,50,9'), ['of a/0.png lies outside its image']),
    (lambda: boxes('{},9,9,55,39'), ['8 of 8 boxes', 'another scale']),
    (lambda: boxes('a/0.png,1,2,3,4'), ['7 of 8 images', 'a/2.png: it has no box']),
]


@pytest.mark.parametrize(('change', 'words'), BAD)
def test_bad_input(prepare, change, words):
    refused(prepare(*(change() or [])), *words)
    assert not Path('out').exists()
    assert not list(Path().glob('.*'))


def test_bad_images_and_masks_are_left_out(prepare):
    code, out, err = prepare(*rotten_masks(), '--skip_bad')
    assert (code, '5 masks' in out, len(lists())) == (0, True, 5)
    assert '3 of 8 images' in err


def test_existing_folders_are_kept(prepare, run_script):
    Path('out').mkdir()
    Path('out/precious').touch()
    refused(prepare(), 'out exists')
    assert os.listdir('out') == ['precious']
    refused(run_script(SCRIPT, 'photos', '--out', 'photos/out'), 'photos/out lies in')


def test_of_two_at_once_the_later_is_refused_and_nothing_lost(prepare, monkeypatch):
    replace = Path.replace

    def late(folder, target):
        os.makedirs('out/image')
        return replace(folder, target)

    monkeypatch.setattr(Path, 'replace', late)
    refused(prepare(), 'out')
    assert os.listdir('out') == ['image']
    assert not list(Path().glob('.*'))
