"""dataset/prepare_cub.py: the official files become the lists of the split, line for line."""

import errno
import io
import os
import shutil
import sys
import tarfile
from itertools import zip_longest
from pathlib import Path

import cv2
import gdown
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

import prepare_cub

from utils.errors import InputError
from utils.lists import cub_images

SCRIPT = 'dataset/prepare_cub.py'
EXCERPT = Path(__file__).parent / 'prepare'
TRAIN, VAL = ((EXCERPT / f'cub_{split}.txt').read_text() for split in ('train', 'val'))
JPEG = cv2.imencode('.jpg', np.zeros((500, 500, 3), np.uint8))[1].tobytes()


def interleaved() -> list[tuple[int, str, int, list[int]]]:
    """(1 for train, name, label, box) of every image of both lists, class by class."""
    rows = []
    for pair in zip_longest(TRAIN.splitlines(), VAL.splitlines()):
        for training, line in zip((1, 0), pair, strict=True):
            if line:
                name, label, box = line.split(',')
                rows.append((training, name, int(label), [int(side) for side in box.split()]))
    return sorted(rows, key=lambda row: row[2])


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def official(tmp_path) -> Path:
    """A folder CUB_200_2011 with the official text files."""
    root = tmp_path / 'official' / 'CUB_200_2011'
    columns = dict.fromkeys(prepare_cub.FILES, '')
    for number, (training, name, label, (xmin, ymin, xmax, ymax)) in enumerate(interleaved(), 1):
        for file, text in zip(prepare_cub.FILES, (
                name, label + 1, training, f'{xmin}.0 {ymin}.0 {xmax - xmin}.0 {ymax - ymin}.0'),
                strict=True):
            columns[file] += f'{number} {text}\n'
        write(root / 'images' / name, JPEG + name.encode())
    for file, text in columns.items():
        write(root / file, text.encode())
    return root


@pytest.fixture
def segmentations(tmp_path) -> Path:
    folder = tmp_path / 'masks' / 'segmentations'
    for _, name, _, _ in interleaved():
        write(folder / name.replace('.jpg', '.png'), name.encode())
    return folder


def pack(folder: Path, archive: Path, name: str | None = None) -> Path:
    with tarfile.open(archive, 'w:gz') as members:
        members.add(folder, name or folder.name)
    return archive


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob('*') if path.is_file()}


def test_lists_are_reproduced_line_for_line(official, segmentations, tmp_path):
    out = tmp_path / 'out'
    counts = prepare_cub.prepare(official, segmentations, out)
    assert (out / 'train.txt').read_text() == TRAIN
    assert (out / 'val.txt').read_text() == VAL
    assert counts == {'train': TRAIN.count('\n'), 'val': VAL.count('\n'),
                      'masks': TRAIN.count('\n') + VAL.count('\n')}
    assert len(cub_images(out, 'val.txt', 200)) == VAL.count('\n')
    for _, name, _, _ in interleaved():
        mask = name.replace('.jpg', '.png')
        assert (out / 'image' / name).samefile(official / 'images' / name)
        assert (out / 'segmentation' / mask).samefile(segmentations / mask)


@pytest.mark.parametrize('classes', [2, 199])
def test_the_first_classes_alone(official, segmentations, run_script, tmp_path, classes):
    """Their files are enough."""
    out = tmp_path / 'out'
    for _, name, label, _ in interleaved():
        if label >= classes:
            (official / 'images' / name).unlink()
    code, printed, err = run_script(SCRIPT, '--source', official, '--out', out, '--classes',
                                    classes, '--segmentations', segmentations)
    assert code == 0, err
    for split, text in (('train', TRAIN), ('val', VAL)):
        expected = [line for line in text.splitlines() if int(line.split(',')[1]) < classes]
        assert (out / f'{split}.txt').read_text().splitlines() == expected
        assert f'{len(expected)} {"training" if split == "train" else split}' in printed
    assert len(content(out / 'image')) == len(content(out / 'segmentation')) == sum(
        label < classes for _, _, label, _ in interleaved())


def test_a_second_run_changes_nothing_and_mends_what_is_gone(official, segmentations, tmp_path):
    out = tmp_path / 'out'
    prepare_cub.prepare(official, segmentations, out)
    first = content(out)
    for name in sorted(first)[::2]:
        (out / name).unlink()
    prepare_cub.prepare(official, segmentations, out)
    assert content(out) == first
    with pytest.raises(InputError, match='of another preparation'):
        prepare_cub.prepare(official, segmentations, out, classes=2)
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

    first = tmp_path / 'out' / 'image' / interleaved()[0][1]
    first.parent.mkdir(parents=True)
    first.symlink_to(tmp_path / 'gone.jpg')  # is replaced
    for function in refusing:
        monkeypatch.setattr(os, function, refuse)
    prepare_cub.prepare(official, None, tmp_path / 'out')
    images = list((tmp_path / 'out' / 'image').rglob('*.jpg'))
    assert {image.is_symlink() for image in images} == {is_link}
    assert content(tmp_path / 'out' / 'image') == content(official / 'images')


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize('name', ['CUB_200_2011', '.'])
def test_archives_give_what_folders_give(official, segmentations, tmp_path, name):
    prepare_cub.prepare(official, segmentations, tmp_path / 'folder')
    archive = pack(official, tmp_path / 'CUB_200_2011.tgz', name)
    assert prepare_cub.find_segmentations(archive) is None
    masks = pack(segmentations, tmp_path / 'segmentations.tgz')
    assert prepare_cub.find_segmentations(archive) == masks
    prepare_cub.prepare(archive, masks, tmp_path / 'archive')
    assert content(tmp_path / 'archive') == content(tmp_path / 'folder')
    assert not list(tmp_path.glob('.archive*'))


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = '') -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize('evil', [
    member('../evil'), member('CUB_200_2011/images/../../../evil'),
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
    with pytest.raises(InputError, match=r'cannot unpack .*evil\.tgz'):
        prepare_cub.prepare(inner / 'evil.tgz', None, inner / 'out')
    assert [path.name for path in tmp_path.rglob('*') if path.is_file()] == ['evil.tgz']


def test_the_archive_is_downloaded_with_its_checksum(official, run_script, tmp_path, monkeypatch):
    def fetch(url, path, hash):
        assert (url, hash) == (prepare_cub.URL, 'md5:97eceeb196236b17998738112f37df78')
        pack(official, Path(path))

    monkeypatch.setattr(gdown, 'cached_download', fetch)
    code, printed, err = run_script(SCRIPT, '--download', '--out', tmp_path / 'out')
    assert (code, 'no segmentation masks' in printed) == (0, True), err
    assert (tmp_path / 'out' / 'val.txt').read_text() == VAL


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(('file', 'line'), [
    ('images.txt', '3'), ('images.txt', '3 ../evil.jpg'), ('images.txt', '3 /etc/evil.jpg'),
    ('images.txt', '3 001.A/a,b.jpg'), ('images.txt', '3 001.A/a.txt'), ('images.txt', ''),
    ('images.txt', '2 001.A/a.jpg'), ('images.txt', f'3 {interleaved()[0][1]}'),
    ('image_class_labels.txt', '3 0'), ('image_class_labels.txt', '3 201'),
    ('image_class_labels.txt', '3 x'), ('train_test_split.txt', '3 2'),
    ('train_test_split.txt', 'x 1'), ('bounding_boxes.txt', '3 1.0 2.0 3.0'),
    ('bounding_boxes.txt', '3 1.0 2.0 nan 4.0'), ('bounding_boxes.txt', '3 1.0 2.0 0.0 4.0'),
])
def test_a_bad_line_is_refused(official, tmp_path, file, line):
    lines = (official / file).read_text().splitlines()
    lines[2] = line
    (official / file).write_text('\n'.join(lines))
    with pytest.raises(InputError, match='/CUB_200_2011') as caught:
        prepare_cub.prepare(pack(official, tmp_path / 'a.tgz'), None, tmp_path / 'out')
    assert str(tmp_path / 'a.tgz' / 'CUB_200_2011') in str(caught.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('file', prepare_cub.FILES)
def test_a_missing_or_cut_file_is_named(official, tmp_path, file):
    lines = (official / file).read_text().splitlines(keepends=True)
    for change in (lambda: (official / file).write_text(''.join(lines[:-2])),
                   (official / file).unlink):
        change()
        with pytest.raises(InputError, match=file):
            prepare_cub.prepare(official, None, tmp_path / 'out')


def test_boxes_of_the_original_images_with_smaller_ones(official, tmp_path):
    small = cv2.imencode('.jpg', np.zeros((200, 200, 3), np.uint8))[1].tobytes()
    for path in (official / 'images').rglob('*.jpg'):
        path.write_bytes(small)
    with pytest.raises(InputError, match=r'bounding_boxes\.txt.*(outside|beyond)'):
        prepare_cub.prepare(official, None, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_missing_images_and_masks_are_counted(official, segmentations, tmp_path, run_script):
    name = interleaved()[4][1]
    (segmentations / name.replace('.jpg', '.png')).unlink()
    with pytest.raises(InputError, match=r'lacks 1 of \d+ files.*png'):
        prepare_cub.prepare(official, segmentations, tmp_path / 'out')
    assert not (tmp_path / 'out' / 'train.txt').exists()
    (official / 'images' / name).unlink()
    with pytest.raises(InputError, match='jpg'):
        prepare_cub.prepare(official, None, tmp_path / 'other')
    shutil.rmtree(official)
    code, _, errors = run_script(SCRIPT, '--source', official)
    assert (code, errors.count('\n'), 'give the archive' in errors) == (2, 1, True)
    assert run_script(SCRIPT, '--source', official, '--classes', 201)[0] == 2
