"""dataset/prepare_cub.py: the official files become the lists of the split, line for line."""

import errno
import hashlib
import io
import os
import sys
import tarfile
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

import prepare_cub
from prepare_cub import corner_box

from utils.data.lists import read_cub_list
from utils.errors import InputError

EXCERPT = Path(__file__).parent / 'prepare'
TRAIN, VAL = ((EXCERPT / f'cub_{split}.txt').read_text() for split in ('train', 'val'))
FILES = ['images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'bounding_boxes.txt']


def interleaved() -> list[tuple[int, str, int, list[int]]]:
    """(1 for train, name, label, box) of every image of both lists, class by class."""
    rows = []
    for pair in zip_longest(TRAIN.splitlines(), VAL.splitlines()):
        for training, line in zip((1, 0), pair, strict=True):
            if line:
                name, label, box = line.split(',')
                rows.append((training, name, int(label), [int(side) for side in box.split()]))
    return sorted(rows, key=lambda row: row[2])


@pytest.fixture
def official(tmp_path) -> Path:
    """A folder CUB_200_2011 with the official text files, and images of a few bytes."""
    root = tmp_path / 'official' / 'CUB_200_2011'
    columns = {file: [] for file in FILES}
    for number, (training, name, label, (xmin, ymin, xmax, ymax)) in enumerate(interleaved(), 1):
        columns['images.txt'].append(f'{number} {name}\n')
        columns['image_class_labels.txt'].append(f'{number} {label + 1}\n')
        columns['train_test_split.txt'].append(f'{number} {training}\n')
        columns['bounding_boxes.txt'].append(
            f'{number} {xmin}.0 {ymin}.0 {xmax - xmin}.0 {ymax - ymin}.0\n')
        write(root / 'images' / name, name)
    for file, lines in columns.items():
        write(root / file, ''.join(lines))
    return root


@pytest.fixture
def segmentations(tmp_path) -> Path:
    folder = tmp_path / 'masks' / 'segmentations'
    for _, name, _, _ in interleaved():
        write(folder / name.replace('.jpg', '.png'), f'mask of {name}')
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, 'w:gz') as members:
        members.add(folder, folder.name)
    return archive


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob('*') if path.is_file()}


def replace_line(path: Path, number: int, line: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text('\n'.join(lines) + '\n')


# ---------------------------------------------------------------- lists and boxes


def test_lists_are_reproduced_line_for_line(official, tmp_path):
    counts = prepare_cub.prepare(official, None, tmp_path / 'out')
    assert (tmp_path / 'out' / 'train.txt').read_text() == TRAIN
    assert (tmp_path / 'out' / 'val.txt').read_text() == VAL
    assert counts == {'train': TRAIN.count('\n'), 'val': VAL.count('\n'), 'masks': 0}


def test_the_list_reader_reads_the_lists(official, tmp_path):
    prepare_cub.prepare(official, None, tmp_path / 'out')
    images = read_cub_list(tmp_path / 'out' / 'val.txt', 200)
    assert images.names[0] == '001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg'
    assert all((tmp_path / 'out' / 'image' / name).is_file() for name in images.names)


@pytest.mark.parametrize(('text', 'box'), [  # lines 1 to 4 of the official bounding_boxes.txt
    ('60.0 27.0 325.0 304.0', '60 27 385 331'),
    ('139.0 30.0 153.0 264.0', '139 30 292 294'),
    ('14.0 112.0 388.0 186.0', '14 112 402 298'),
    ('112.0 90.0 255.0 242.0', '112 90 367 332'),
])
def test_official_boxes(text, box):
    assert corner_box(text, 'here') == box


@given(st.tuples(st.integers(0, 5000), st.integers(0, 5000)),
       st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
def test_corner_is_origin_plus_size(origin, size):
    (x, y), (width, height) = origin, size
    assert (corner_box(f'{x}.0 {y}.0 {width}.0 {height}.0', 'here')
            == f'{x} {y} {x + width} {y + height}')


@given(st.text() | st.lists(st.floats().map(str), max_size=5).map(' '.join))
def test_any_other_text_is_a_box_with_area_or_bad_input(text):
    try:
        xmin, ymin, xmax, ymax = map(int, corner_box(text, 'here').split())
    except InputError:
        return
    assert xmin < xmax
    assert ymin < ymax


# ---------------------------------------------------------------- images and masks


def test_images_and_masks_are_linked_not_copied(official, segmentations, tmp_path):
    out = tmp_path / 'out'
    prepare_cub.prepare(official, segmentations, out)
    for _, name, _, _ in interleaved():
        mask = name.replace('.jpg', '.png')
        assert (out / 'image' / name).samefile(official / 'images' / name)
        assert (out / 'segmentation' / mask).samefile(segmentations / mask)
        assert not (out / 'image' / name).is_symlink()


def test_a_second_run_changes_nothing_and_mends_what_is_gone(official, segmentations, tmp_path):
    out = tmp_path / 'out'
    prepare_cub.prepare(official, segmentations, out)
    first = content(out)
    prepare_cub.prepare(official, segmentations, out)
    assert content(out) == first
    for name in sorted(first)[::2]:
        (out / name).unlink()
    prepare_cub.prepare(official, segmentations, out)
    assert content(out) == first


def test_the_source_folder_itself_can_be_filled(official):
    prepare_cub.prepare(official, None, official)
    assert (official / 'train.txt').read_text() == TRAIN
    assert len(content(official / 'image')) == len(content(official / 'images'))


@pytest.mark.parametrize(('refusing', 'is_link'), [(['link'], True), (['link', 'symlink'], False)])
def test_without_hard_links_symbolic_ones_then_copies(official, tmp_path, monkeypatch, refusing,
                                                      is_link):
    def refuse(*_):
        raise OSError(errno.EXDEV, 'other file system')

    for function in refusing:
        monkeypatch.setattr(os, function, refuse)
    prepare_cub.prepare(official, None, tmp_path / 'out')
    images = list((tmp_path / 'out' / 'image').rglob('*.jpg'))
    assert {image.is_symlink() for image in images} == {is_link}
    assert content(tmp_path / 'out' / 'image') == content(official / 'images')


def test_a_link_that_leads_nowhere_is_replaced(official, tmp_path):
    target = tmp_path / 'out' / 'image' / interleaved()[0][1]
    target.parent.mkdir(parents=True)
    target.symlink_to(tmp_path / 'gone.jpg')
    prepare_cub.prepare(official, None, tmp_path / 'out')
    assert target.read_text() == interleaved()[0][1]


# ---------------------------------------------------------------- archives


def test_archives_give_what_folders_give(official, segmentations, tmp_path):
    prepare_cub.prepare(official, segmentations, tmp_path / 'folder')
    archive = pack(official, tmp_path / 'CUB_200_2011.tgz')
    masks = pack(segmentations, tmp_path / 'segmentations.tgz')
    prepare_cub.prepare(archive, masks, tmp_path / 'archive')
    assert content(tmp_path / 'archive') == content(tmp_path / 'folder')
    assert not list(tmp_path.glob('.archive*'))


def test_segmentations_are_found_beside_the_source(official, segmentations, tmp_path):
    archive = tmp_path / 'CUB_200_2011.tgz'
    assert prepare_cub.find_segmentations(archive) is None
    assert prepare_cub.find_segmentations(official) is None
    packed = pack(segmentations, tmp_path / 'segmentations.tgz')
    assert prepare_cub.find_segmentations(archive) == packed
    beside = official.parent / 'segmentations'
    segmentations.rename(beside)
    assert prepare_cub.find_segmentations(official) == beside
    beside.rename(official / 'segmentations')
    assert prepare_cub.find_segmentations(official) == official / 'segmentations'


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = '') -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize('evil', [
    member('../evil'),
    member('CUB_200_2011/images/../../../evil'),
    member('/tmp/evil'),
    member('CUB_200_2011/images/evil', tarfile.SYMTYPE, '/etc/passwd'),
    member('CUB_200_2011/images/evil', tarfile.SYMTYPE, 'inside'),
    member('CUB_200_2011/images/evil', tarfile.LNKTYPE, 'CUB_200_2011/images.txt'),
    member('CUB_200_2011/images/evil', tarfile.FIFOTYPE),
], ids=lambda info: f'{info.name} {info.linkname}')
def test_an_archive_that_reaches_out_is_refused(evil, tmp_path):
    inner = tmp_path / 'deep' / 'deeper'
    inner.mkdir(parents=True)
    with tarfile.open(inner / 'evil.tgz', 'w:gz') as members:
        members.addfile(member('CUB_200_2011/images.txt'), io.BytesIO(b'1 a\n'))
        members.addfile(evil, io.BytesIO(b'evil'))
    with pytest.raises(InputError, match=r'evil\.tgz'):
        prepare_cub.prepare(inner / 'evil.tgz', None, inner / 'out')
    assert [path.name for path in tmp_path.rglob('*') if path.is_file()] == ['evil.tgz']
    assert not (inner / 'out').exists()


@pytest.mark.parametrize('damage', [lambda data: data[:len(data) // 2], lambda data: data[:10],
                                    lambda data: b'no archive' * 100, lambda data: b'',
                                    lambda data: data[:500] + b'?' * 100 + data[600:]])
def test_a_damaged_archive_is_named(official, tmp_path, damage):
    archive = pack(official, tmp_path / 'CUB_200_2011.tgz')
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(InputError, match=r'/CUB_200_2011\.tgz'):
        prepare_cub.prepare(archive, None, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    assert not list(tmp_path.glob('.out*'))


@pytest.mark.parametrize('kind', ['gz', 'bz2', 'xz'])
def test_an_archive_damaged_or_cut_off_after_its_last_member_is_refused(official, tmp_path, kind):
    """What a checksum covers was read without complaint; the checksum itself must be read, too."""
    archive = tmp_path / f'a.t{kind}'
    with tarfile.open(archive, f'w:{kind}') as members:
        members.add(official, 'CUB_200_2011')
    whole = archive.read_bytes()
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # of the checksum at the end
    for damaged in (whole[:-2], bytes(flipped)):
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match=rf'cannot unpack .*a\.t{kind}'):
            prepare_cub.prepare(archive, None, tmp_path / 'out')
        assert not (tmp_path / 'out').exists()


def test_an_archive_of_the_folder_itself_is_read(official, tmp_path):
    """As `tar czf x.tgz .` packs it."""
    archive = tmp_path / 'x.tgz'
    with tarfile.open(archive, 'w:gz') as members:
        members.add(official, '.')
    prepare_cub.prepare(official, None, tmp_path / 'folder')
    prepare_cub.prepare(archive, None, tmp_path / 'archive')
    assert content(tmp_path / 'archive') == content(tmp_path / 'folder')


def test_a_bad_line_in_an_archive_is_named_by_its_place_there(official, tmp_path):
    replace_line(official / 'train_test_split.txt', 7, '7 yes')
    archive = pack(official, tmp_path / 'a.tgz')
    with pytest.raises(InputError, match=r'/a\.tgz/CUB_200_2011/train_test_split\.txt, line 7:'):
        prepare_cub.prepare(archive, None, tmp_path / 'out')


def test_another_archive_is_not_mistaken_for_the_data(segmentations, tmp_path):
    with pytest.raises(InputError, match=r'no images\.txt'):
        prepare_cub.prepare(pack(segmentations, tmp_path / 'a.tgz'), None, tmp_path / 'out')


def test_what_is_not_the_whole_archive_is_downloaded_once(official, tmp_path, monkeypatch, capsys):
    content = pack(official, tmp_path / 'served.tgz').read_bytes()
    fetched = []

    def fetch(url, part):
        fetched.append(url)
        part.write_bytes(content)

    assert prepare_cub.CHECKSUM == 'md5:97eceeb196236b17998738112f37df78'
    monkeypatch.setattr(prepare_cub, 'CHECKSUM', f'md5:{hashlib.md5(content).hexdigest()}')
    monkeypatch.setattr('network.download._fetch', fetch)
    monkeypatch.setattr(sys, 'argv', ['prepare_cub.py', '--download', '--out',
                                      str(tmp_path / 'out')])
    archive = tmp_path / 'CUB_200_2011.tgz'
    archive.write_bytes(b'half of it')
    prepare_cub.main()
    prepare_cub.main()
    assert archive.read_bytes() == content
    assert fetched == [prepare_cub.URL]
    assert 'no segmentation masks' in capsys.readouterr().out


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(('file', 'line'), [
    ('images.txt', '3'),
    ('images.txt', '3 ../../evil.jpg'),
    ('images.txt', '3 /etc/evil.jpg'),
    ('images.txt', '3 001.A/a,b.jpg'),
    ('images.txt', '3 evil.jpg'),
    ('images.txt', '3 001.A/a.txt'),
    ('images.txt', '2 001.A/a.jpg'),
    ('images.txt', ''),
    ('image_class_labels.txt', '3 0'),
    ('image_class_labels.txt', '3 201'),
    ('image_class_labels.txt', '3 ²'),
    ('image_class_labels.txt', '3 ' + '9' * 5000),
    ('train_test_split.txt', '3 2'),
    ('train_test_split.txt', 'x 1'),
    ('bounding_boxes.txt', '3 1.0 2.0 3.0'),
    ('bounding_boxes.txt', '3 1.0 2.0 nan 4.0'),
    ('bounding_boxes.txt', '3 1e308 2.0 1e308 4.0'),
    ('bounding_boxes.txt', '3 1.0 2.0 0.0 4.0'),
])
def test_a_bad_line_is_named_with_its_number(official, tmp_path, file, line):
    replace_line(official / file, 3, line)
    with pytest.raises(InputError, match=rf'{file}, line 3: ') as caught:
        prepare_cub.prepare(official, None, tmp_path / 'out')
    assert len(str(caught.value)) < 500
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('file', FILES)
def test_a_missing_file_is_named(official, tmp_path, file):
    (official / file).unlink()
    with pytest.raises(InputError, match=file):
        prepare_cub.prepare(official, None, tmp_path / 'out')


@pytest.mark.parametrize('file', FILES)
def test_a_cut_file_is_named(official, tmp_path, file):
    lines = (official / file).read_text().splitlines(keepends=True)
    (official / file).write_text(''.join(lines[:-2]))
    with pytest.raises(InputError, match=f'{file} lacks 2 ids .* first is {len(lines) - 1}:'):
        prepare_cub.prepare(official, None, tmp_path / 'out')


@pytest.mark.parametrize('garbage', [b'', bytes(range(256)) * 8, b'\xff\xfe1 a\n'])
def test_a_file_that_is_no_text_is_named(official, tmp_path, garbage):
    (official / 'images.txt').write_bytes(garbage)
    with pytest.raises(InputError, match=r'images\.txt'):
        prepare_cub.prepare(official, None, tmp_path / 'out')


def test_two_ids_of_one_image_are_named(official, tmp_path):
    replace_line(official / 'images.txt', 3, f'3 {interleaved()[0][1]}')
    with pytest.raises(InputError, match='ids 1 and 3'):
        prepare_cub.prepare(official, None, tmp_path / 'out')


def test_missing_images_and_masks_are_counted(official, segmentations, tmp_path):
    name = interleaved()[4][1]
    (segmentations / name.replace('.jpg', '.png')).unlink()
    with pytest.raises(InputError, match=r'lacks 1 of \d+ files.*png'):
        prepare_cub.prepare(official, segmentations, tmp_path / 'out')
    assert not (tmp_path / 'out' / 'train.txt').exists()
    (official / 'images' / name).unlink()
    with pytest.raises(InputError, match=f'lacks 1 of .* first is {name}'):
        prepare_cub.prepare(official, None, tmp_path / 'other')
    assert not (tmp_path / 'other').exists()


def test_command_line(official, tmp_path, run_script):
    out = tmp_path / 'out'
    code, printed, _ = run_script('dataset/prepare_cub.py', '--source', official, '--out', out)
    assert code == 0
    assert f"{TRAIN.count(chr(10))} training and {VAL.count(chr(10))} val" in printed
    code, _, errors = run_script('dataset/prepare_cub.py', '--source', tmp_path / 'no')
    assert code == 2
    assert errors.count('\n') == 1
    assert 'give the archive' in errors
    assert run_script('dataset/prepare_cub.py')[0] == 2
