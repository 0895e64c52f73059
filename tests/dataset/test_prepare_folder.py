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

from csv_boxes import read_boxes
from prepare_folder import Sample, split

from utils.errors import InputError
from utils.lists import cub_images

SCRIPT = 'dataset/prepare_folder.py'


def save(path: Path, content: int | np.ndarray | Image.Image, **options) -> Path:
    if isinstance(content, int):
        content = np.full((20, 30, 3), content, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
    image.save(path, **options)
    return path


def rectangle(value: int = 255, size: tuple[int, int] = (20, 30), void: int = 0) -> np.ndarray:
    """A mask; `void`: the value of a frame round the object."""
    mask = np.zeros(size, np.uint8)
    mask[4:10, 2:11] = void
    mask[5:9, 3:10] = value
    return mask


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of four images, 30 x 20 pixels, no two alike."""
    for number in range(8):
        save(tmp_path / 'photos' / 'ab'[number % 2] / f'{number}.png', number)
    return tmp_path / 'photos'


@pytest.fixture
def prepare(run_script, tmp_path):
    """prepare(photos, ...) -> (exit code, stdout, stderr); the result is in tmp_path/out."""
    return lambda folder, *more: run_script(SCRIPT, folder, '--out', tmp_path / 'out', *more)


@pytest.fixture
def fails(prepare, tmp_path):
    """fails(photos, ..., words=[...]): exit code 2, one line with these words, and nothing left."""
    def check(*arguments: object, words: list[str]) -> None:
        code, _, err = prepare(*arguments)
        assert code == 2, err
        *_, line = err.splitlines()
        assert line.startswith('error: ')
        assert all(word in line for word in words), line
        assert not (tmp_path / 'out').exists()
        assert not list(tmp_path.glob('.*'))

    return check


def lists(out: Path) -> dict[str, tuple[str, int, list]]:
    """{image: (its list, label, boxes)}."""
    found = {}
    for name in ('train', 'val'):
        if (out / f'{name}.txt').exists():
            images = cub_images(out, f'{name}.txt', 9)
            for index in range(len(images)):
                boxes = [] if images.boxes is None else images.boxes[index].tolist()
                found[images.name(index)] = name, int(images.labels[index]), boxes
    return found


# ---------------------------------------------------------------- folders


def test_class_folders(photos, prepare, tmp_path):
    save(photos / 'b' / 'deep er' / "it's ünï.PNG", 99)
    code, out, err = prepare(photos, '--val', '0.25')
    assert (code, err) == (0, '')
    assert '2 classes, 7 training and 2 val images, no masks' in out
    found = lists(tmp_path / 'out')
    assert {name: label for name, (_, label, _) in found.items()} == {
        **{f'a/{k}.png': 0 for k in (0, 2, 4, 6)}, **{f'b/{k}.png': 1 for k in (1, 3, 5, 7)},
        "b/deep er/it's ünï.PNG": 1}
    assert all((tmp_path / 'out' / 'image' / name).samefile(photos / name) for name in found)
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
    assert prepare(photos, '--val', 0)[0] == 0
    assert {where for where, *_ in lists(tmp_path / 'out').values()} == {'train'}


def test_hidden_folders_are_left_out_links_followed_and_loose_files_counted(photos, prepare,
                                                                            tmp_path):
    for folder in ('@eaDir', '.thumbnails', '__MACOSX', '$RECYCLE.BIN', '#recycle', 'lost+found'):
        save(photos / folder / 'thumb.jpg', 200)
        save(photos / 'a' / folder / '0.jpg', 201)
    (photos / 'a' / 'Thumbs.db').touch()
    save(tmp_path / 'elsewhere' / 'c1.png', 100)
    (photos / 'c').symlink_to(tmp_path / 'elsewhere')
    save(tmp_path / 'more' / 'a9.png', 101)
    (photos / 'a' / 'more').symlink_to(tmp_path / 'more')
    (photos / 'a' / 'again').symlink_to(photos / 'a')  # a circle
    save(photos / 'loose.jpg', 102)
    (photos / 'a' / 'x.HEIC').touch()
    code, out, err = prepare(photos)
    assert (code, out.count('3 classes')) == (0, 1), err
    assert sorted(lists(tmp_path / 'out')) == [
        'a/0.png', 'a/2.png', 'a/4.png', 'a/6.png', 'a/more/a9.png', 'b/1.png', 'b/3.png',
        'b/5.png', 'b/7.png', 'c/c1.png']
    assert '1 files beside the class folders are left out: loose.jpg' in err
    assert '1 files are no images by their suffix, and ignored: .HEIC' in err
    assert '1 images are the only one of their class, and in train.txt: c/c1.png' in err


@pytest.mark.parametrize(('folders', 'words'), [
    (['train/a', 'train/b', 'val/a', 'val/b'], ['a split (train, val)', 'photos/train', '--val 0']),
    (['Training/a', 'Test/a', 'readme'], ['a split (Test, Training)']),
    (['train/a', 'train/b'], ['a split (train)', 'photos/train']),
    (['images/a', 'images/b', 'masks/a'], ['images, masks', '--masks']),
    (['image/a', 'segmentation/a'], ['image, segmentation']),
    (['animals/cat', 'animals/dog'], ['1 class folders', 'is it', 'photos/animals']),
    (['a'], ['1 class folders', 'at least 2']),
    ([], ['0 class folders']),
])
def test_folders_that_are_no_classes(fails, tmp_path, folders, words):
    (tmp_path / 'photos').mkdir()
    for number, folder in enumerate(folders):
        save(tmp_path / 'photos' / folder / f'{number}.png', number)
    fails(tmp_path / 'photos', words=words)


def test_classes_one_level_deeper_are_suspected(prepare, tmp_path):
    for number, folder in enumerate(('wild/cat', 'wild/dog', 'tame/cat')):
        save(tmp_path / 'photos' / folder / f'{number}.png', number)
    code, _, err = prepare(tmp_path / 'photos')
    assert code == 0
    assert 'the classes are tame, wild; if they are meant to be cat' in err


def test_missing_folders(photos, fails, tmp_path):
    fails(tmp_path / 'none', words=['no folder'])
    fails(photos, '--masks', tmp_path / 'none', words=['--masks'])
    fails(photos, '--masks', photos / 'a', words=['--masks', 'move it out'])
    fails(photos, '--boxes', tmp_path / 'none', words=['--boxes'])
    (photos / 'c').mkdir()
    fails(photos, words=['no image in', 'c: remove'])


@pytest.mark.parametrize(('name', 'words'), [
    ('a/x,y.png', ['a/x,y.png', 'comma']), ('a/x\ny.png', ['line break']), (' a/x.png', ['space']),
    ('a/0.jpg', ['a/0.jpg and a/0.png', 'share a mask']), ('a\\b/x.png', ['backslash']),
])
def test_names_that_a_list_cannot_hold(photos, fails, name, words):
    save(photos / name, 100)
    fails(photos, words=words)


def test_masks_among_the_images(photos, fails):
    for image in list(photos.rglob('*.png')):
        save(image.with_name(f'{image.stem}_mask.png'), rectangle())
    fails(photos, words=['named as masks', '--masks'])


# ---------------------------------------------------------------- the output folder


def test_existing_folders_are_kept(photos, run_script, prepare, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'precious').touch()
    code, _, err = prepare(photos)
    assert (code, 'exists' in err) == (2, True)
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['precious']
    code, _, err = run_script(SCRIPT, photos, '--out', photos / 'out')
    assert (code, 'lies in the folder of the images' in err) == (2, True)


def test_of_two_at_once_the_later_is_refused_and_nothing_lost(photos, prepare, tmp_path,
                                                               monkeypatch):
    """The other one is ready while this one reads its images."""
    import preparation

    def other_is_ready(out, check=preparation.check_free):
        (out / 'image').mkdir(parents=True)
        check(out)

    monkeypatch.setattr(preparation, 'check_free', other_is_ready)
    code, _, err = prepare(photos)
    assert (code, 'out exists' in err) == (2, True)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['image']
    assert not list(tmp_path.glob('.*'))


# ---------------------------------------------------------------- split


def test_identical_files_are_on_one_side_and_each_class_is_trained(photos, prepare, tmp_path):
    """All images of c are copies of images of a and b."""
    for number in range(6):
        save(photos / 'a' / f'copy{number}.png', 0)
    for number in range(4):
        save(photos / 'c' / f'{number}.png', number)
    for seed in range(5):
        code, _, err = prepare(photos, '--seed', seed)
        assert code == 0
        assert '14 images are in several classes, and all in train.txt' in err
        found = lists(tmp_path / 'out')
        assert {label for where, label, _ in found.values() if where == 'train'} == {0, 1, 2}
        assert {where for name, (where, *_) in found.items() if 'copy' in name} == {'train'}
        (tmp_path / 'out').rename(tmp_path / f'out{seed}')


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


# ---------------------------------------------------------------- masks


def palette_mask(*colours: int) -> Image.Image:
    image = Image.fromarray(rectangle(2), 'P')
    image.putpalette(colours)
    return image


GREY = np.full((20, 30), 7, np.uint8)


@pytest.mark.parametrize(('mask', 'stored'), [
    (rectangle(1), None), (rectangle(3), None), (rectangle() > 0, None),
    (rectangle().astype(np.uint16) * 257, None), (rectangle(1, void=255), rectangle(1, void=255)),
    (np.dstack([rectangle(), 0 * GREY, 0 * GREY]), None),
    (np.dstack([rectangle()] * 3 + [0 * GREY + 255]), None),
    (np.dstack([GREY] * 3 + [rectangle()]), None), (np.dstack([GREY, rectangle()]), None),
    (palette_mask(0, 0, 0, 128, 0, 0, 0, 0, 128), None),
    (palette_mask(0, 0, 0, 9, 9, 9, 255, 255, 255), None),
    (palette_mask(255, 255, 255, 9, 9, 9, 0, 0, 0), 255 - rectangle()),
    (np.repeat(np.repeat(rectangle(), 2, 0), 2, 1), None),
], ids=['0 and 1', 'label', 'bool', '16 bits', 'void', 'red', 'RGBA', 'alpha', 'grey + alpha',
        'colours', 'grey palette', 'white first', 'twice the size'])
def test_masks_of_any_kind(photos, prepare, tmp_path, mask, stored):
    for file in photos.rglob('*.png'):
        save(tmp_path / 'masks' / file.relative_to(photos), mask if isinstance(mask, Image.Image)
             else np.array(mask))
    code, out, err = prepare(photos, '--masks', tmp_path / 'masks')
    assert code == 0, err
    assert '8 masks' in out
    box = [0, 0, 30, 20] if stored is not None and stored[0, 0] else [3, 5, 10, 9]
    assert [boxes for _, _, boxes in lists(tmp_path / 'out').values()] == [[box]] * 8
    written = cv2.imread(str(tmp_path / 'out' / 'segmentation' / 'a' / '0.png'), -1)
    assert np.array_equal(written, rectangle() if stored is None else stored)


@pytest.mark.parametrize(('mask', 'words'), [
    (np.where(rectangle(), 1, 2).astype(np.uint8), ['the values 1, 2', 'trimaps']),
    (rectangle(3, void=2), ['the values 0, 2, 3', 'instance numbers']),
    (40 + rectangle(200), ['the values 40, 240']),
    (np.dstack([rectangle()] * 3 + [rectangle(99)]), ['either could be the mask']),
    (rectangle(size=(30, 20)), ['20 x 30 pixels', '30 x 20', 'turned']),
    (rectangle(size=(20, 25)), ['25 x 20 pixels']),
    (rectangle(0), ['8 images: mask without foreground']),
], ids=['trimap', 'instances', 'no zero', 'colours and alpha', 'turned', 'another shape', 'empty'])
def test_masks_that_no_guess_is_safe_for(photos, fails, tmp_path, mask, words):
    for file in photos.rglob('*.png'):
        save(tmp_path / 'masks' / file.relative_to(photos), mask)
    fails(photos, '--masks', tmp_path / 'masks', words=['8 images: mask', 'a/0.png', *words])


@pytest.mark.parametrize('name', ['a/0_mask.png', 'a/0.gif', 'a/0.bmp', 'a/0.TIF', 'a/0.jpg',
                                  'a/0-seg.png', 'a/0.png.png', '0.png', '0_mask.gif',
                                  'flat/0.png'])
def test_names_of_masks(photos, prepare, tmp_path, name):
    for file in photos.rglob('*.png'):
        own = name.replace('a/', f'{file.parent.name}/').replace('0', file.stem, 1)
        save(tmp_path / 'masks' / own, rectangle(),
             **({'quality': 100} if own.endswith('jpg') else {}))
    code, out, err = prepare(photos, '--masks', tmp_path / 'masks')
    assert code == 0, err
    assert '8 masks' in out


def test_accents_in_another_form(photos, prepare, tmp_path):
    save(photos / 'a' / 'caf\u00e9.png', 50)
    for file in photos.rglob('*.png'):
        save(tmp_path / 'masks' / file.relative_to(photos), rectangle())
    (tmp_path / 'masks' / 'a' / 'caf\u00e9.png').rename(tmp_path / 'masks' / 'a' / 'cafe\u0301.png')
    code, out, _ = prepare(photos, '--masks', tmp_path / 'masks')
    assert (code, '9 masks' in out) == (0, True)


def test_masks_that_fit_no_image_or_one_twice(photos, fails, tmp_path):
    save(tmp_path / 'masks' / 'zebra.png', rectangle())
    fails(photos, '--masks', tmp_path / 'masks', words=['looked for a/0.png', 'found zebra.png'])
    save(tmp_path / 'masks' / 'a' / '0.png', rectangle())
    save(tmp_path / 'masks' / 'a' / '0_mask.gif', rectangle())
    fails(photos, '--masks', tmp_path / 'masks', words=['masks of one image', '0_mask.gif'])


def test_inverted_masks_are_suspected(photos, prepare, tmp_path):
    for file in photos.rglob('*.png'):
        save(tmp_path / 'masks' / file.relative_to(photos), 255 - rectangle())
    code, _, err = prepare(photos, '--masks', tmp_path / 'masks')
    assert code == 0
    assert '8 images have masks that touch all four borders or cover over 95 %' in err


def test_bad_images_and_masks_are_counted_or_left_out(photos, prepare, fails, tmp_path):
    masks = tmp_path / 'masks'
    for file in photos.rglob('*.png'):
        save(masks / file.relative_to(photos), rectangle())
    save(masks / 'a' / '0.png', rectangle(0))
    save(masks / 'b' / '1.png', rectangle(size=(30, 20)))
    (masks / 'a' / '2.png').unlink()
    (photos / 'a' / 'x.png').write_bytes(b'no image')
    (photos / 'a' / 'y.png').symlink_to(tmp_path / 'nowhere')
    for name in ('x', 'y'):
        save(masks / 'a' / f'{name}.png', rectangle())
    words = ['2 images: cannot be read (a/x.png, a/y.png)', '1 images: no mask (a/2.png)',
             'without foreground (a/0.png)', 'mask that cannot be used (b/1.png)']
    fails(photos, '--masks', masks, words=['--skip_bad', *words])
    code, out, err = prepare(photos, '--masks', masks, '--skip_bad')
    assert code == 0
    assert all(word in err for word in words)
    assert len(lists(tmp_path / 'out')) == 5
    assert '5 masks' in out


@pytest.mark.parametrize('lost', ['a', 'ab'])
def test_a_class_that_vanishes_leaves_no_hole_in_the_labels(photos, fails, lost):
    for folder in lost:
        for file in (photos / folder).iterdir():
            file.write_bytes(b'no image')
    fails(photos, '--skip_bad', words=[f'{len(lost)} of 2 classes have no usable image'])


def test_a_rotated_image_is_named(photos, prepare):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(photos / 'a' / 'turned.jpg', 77, exif=exif)
    code, _, err = prepare(photos)
    assert code == 0
    assert '1 images have an EXIF rotation, which is ignored' in err


# ---------------------------------------------------------------- boxes


@pytest.mark.parametrize(('row', 'header', 'encoding'), [
    ('{},1,2,10.5,12', '', 'utf-8'),
    ('{},1,2,10.5,12', 'name,xmin,ymin,xmax,ymax', 'utf-8-sig'),
    ('{},1,2,10.5,12,0.8,1', 'name,x0,y0,x1,y1,iou,correct', 'utf-8'),
    ('{};1;2;10,5;12', 'Name;Xmin;Ymin;Xmax;Ymax\r\n;;;;\r\n', 'utf-8'),
    ('{}\t1\t2\t10.5\t12', '', 'utf-16'),
    ('{},30,20,dog,2,1,12,10.5', 'filename,width,height,class,ymin,xmin,ymax,xmax', 'utf-8'),
    ('"{}", 1, 2, 10.5, 12', '', 'utf-8'),
    ('photos/{},1,2,10.5,12', '', 'utf-8'),
    ('./{},1,2,10.5,12', '', 'utf-8'),
    ('FOLDER/{},1,2,10.5,12', '', 'utf-8'),
    ('WINDOWS{},1,2,10.5,12', '', 'utf-8'),
    ('NAME{},1,2,10.5,12', 'image,left,top,right,bottom', 'cp1252'),
    ('STEM{},1,2,10.5,12', '', 'utf-8'),
    ('NFD{},1,2,10.5,12', '', 'utf-8'),
], ids=['plain', 'BOM', 'our own', 'Excel', 'UTF-16', 'columns', 'spaces', 'folder', 'dot',
        'absolute', 'backslashes', 'file names', 'no suffix', 'accents'])
def test_boxes(photos, prepare, tmp_path, row, header, encoding):
    save(photos / 'a' / 'caf\u00e9.png', 50)
    rows = [header] if header else []
    for file in sorted(photos.rglob('*.png')):
        name = file.relative_to(photos).as_posix()
        for mark, change in (('WINDOWS', lambda name: name.replace('/', '\\')),
                             ('NAME', lambda name: name.split('/')[1]),
                             ('STEM', lambda name: name[:-4]),
                             ('NFD', lambda name: name.replace('\u00e9', 'e\u0301'))):
            name = change(name) if mark in row else name
        rows.append(row.replace('FOLDER', str(photos)).lstrip('WINDOSAMETF').format(name))
    (tmp_path / 'boxes.csv').write_bytes('\n'.join([*rows, '']).encode(encoding))
    code, _, err = prepare(photos, '--boxes', tmp_path / 'boxes.csv')
    assert (code, err) == (0, '')
    assert [found for _, _, found in lists(tmp_path / 'out').values()] == [[[1, 2, 10.5, 12]]] * 9


def test_several_boxes_of_an_image(photos, prepare, tmp_path):
    save(photos / 'a' / 'b "c".png', 50)
    rows = [f'{file.relative_to(photos)},1,2,10,12' for file in photos.rglob('?.png')]
    (tmp_path / 'boxes.csv').write_text('\n'.join(
        [*rows, 'a/0.png,4,5,30,20', '"a/b ""c"".png",0,0,9,9']))
    assert prepare(photos, '--boxes', tmp_path / 'boxes.csv')[0] == 0
    found = {name: boxes for name, (_, _, boxes) in lists(tmp_path / 'out').items()}
    assert found['a/0.png'] == [[1, 2, 10, 12], [4, 5, 30, 20]]
    assert found['b/1.png'] == [[1, 2, 10, 12]]
    assert found['a/b "c".png'] == [[0, 0, 9, 9]]


@pytest.mark.parametrize(('text', 'words'), [
    ('a/0.png,1,2,3', ['line 1', 'xmin']), ('a/0.png,1,2,x,4', ['line 1', 'xmin']),
    ('a/0.png,0,1 2 3 4', ['line 1', 'name,xmin,ymin,xmax,ymax']),
    ('a/0.png,5,5,3,9', ['line 1', 'no area', 'xmax = x + width']),
    ('a/0.png,1,2,nan,4', ['line 1']), ('a/0.png,1,2,3,4,5', ['line 1', 'add a header']),
    ('name,x,y,width,height\na/0.png,1,2,3,4', ["the header 'name,x,y,width", 'x + width']),
    ('a/9.png,1,2,3,4', ['line 1', "no image 'a/9.png'", "'a/0.png'"]),
    ('other/a/0.png,1,2,3,4', ['no image']), ('1.png,1,2,3,4', ['2 images are called', '1.png']),
    ('a/0.png,0,0,0.5,1', ['0 ... 1', 'YOLO', 'pixels']),
    ('a/0.png,0.5,0.5,0.2,0.3', ['0 ... 1', 'YOLO']), ('"a/0.png,1,2,3,4', ['CSV']),
    ('a/0.png,40,0,50,9', ['1 images: box outside the image (a/0.png)', '8 images: no box']),
    ('\n'.join(f'{name},40,40,90,90' for name in ('a/0.png', 'a/2.png', 'a/4.png', 'b/3.png')),
     ['4 images: box outside', 'another scale']), ('', ['9 images: no box']),
    ('\n'.join(f'{"ab"[k % 2]}/{k}.png,9,9,55,39' for k in range(8)) + '\na/1.png,1,1,3,3',
     ['8 of 9 boxes', 'another scale']),
])
def test_wrong_boxes(photos, fails, tmp_path, text, words):
    save(photos / 'a' / '1.png', 60)
    (tmp_path / 'boxes.csv').write_text(text)
    fails(photos, '--boxes', tmp_path / 'boxes.csv', words=words)


@given(st.binary(max_size=60) | st.text('a,;\t1.-"\n x', max_size=40).map(str.encode))
def test_any_table_has_boxes_or_is_refused(content):
    path = Path(__file__)  # is not read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, 'read_bytes', lambda _: content)
        try:
            boxes = [box for _, _, box in read_boxes(path) if box]
        except InputError:
            return
    assert all(box[0] < box[2] and box[1] < box[3] for box in boxes)
