"""dataset/prepare_cub.py: the official files become the lists of the split, line for line."""

import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import encoded, refused

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

import prepare_cub

from utils.lists import cub_images

SCRIPT = 'dataset/prepare_cub.py'
EXCERPT = Path(__file__).parent / 'prepare'
IMAGE = encoded(np.zeros((500, 500), np.uint8))
TRAIN, VAL = ((EXCERPT / f'cub_{split}.txt').read_text() for split in ('train', 'val'))


def rows() -> list[tuple[int, str, int, list[int]]]:
    """(1 for train, name, label, box) of every image of both lists, class by class."""
    found = [(training, *line.split(',')) for training, text in ((1, TRAIN), (0, VAL))
             for line in text.splitlines()]
    return sorted(((training, name, int(label), [int(side) for side in box.split()])
                   for training, name, label, box in found), key=lambda row: row[2])


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def official(tmp_path) -> Path:
    """A folder CUB_200_2011 with the official text files, and masks beside it."""
    root = tmp_path / 'official' / 'CUB_200_2011'
    columns = dict.fromkeys(prepare_cub.FILES, '')
    for number, (training, name, label, (xmin, ymin, xmax, ymax)) in enumerate(rows(), 1):
        box = f'{xmin}.0 {ymin}.0 {xmax - xmin}.0 {ymax - ymin}.0'
        for file, text in zip(prepare_cub.FILES, (name, label + 1, training, box), strict=True):
            columns[file] += f'{number} {text}\n'
        write(root / 'images' / name, IMAGE + name.encode())
        write(root.parent / 'segmentations' / name.replace('.jpg', '.png'), name.encode())
    for file, text in columns.items():
        write(root / file, text.encode())
    return root


@pytest.fixture
def prepare(run_script, tmp_path):
    """prepare(source, ...) -> (exit code, stdout, stderr); the result is in tmp_path/out."""
    return lambda source, *more: run_script(SCRIPT, '--source', source, '--out', tmp_path / 'out',
                                            *more)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob('*') if path.is_file()}


def test_lists_are_reproduced_line_for_line(official, prepare, tmp_path):
    out = tmp_path / 'out'
    code, printed, err = prepare(official)
    assert code == 0, err
    assert '120 training and 120 val images, 240 segmentation masks' in printed
    assert (out / 'train.txt').read_text() == TRAIN
    assert (out / 'val.txt').read_text() == VAL
    assert len(cub_images(out, 'val.txt', 200)) == VAL.count('\n')
    for _, name, _, _ in rows():
        mask = name.replace('.jpg', '.png')
        assert (out / 'image' / name).samefile(official / 'images' / name)
        assert (out / 'segmentation' / mask).read_bytes() == name.encode()
    first = content(out)
    for name in sorted(first)[::2]:
        (out / name).unlink()
    assert prepare(official)[0] == 0  # mends what is gone
    assert content(out) == first


@pytest.mark.parametrize('classes', [2, 199])
def test_the_first_classes_alone(official, prepare, tmp_path, classes):
    """Their files are enough."""
    kept = [name for _, name, label, _ in rows() if label < classes]
    for path in (official / 'images').rglob('*.jpg'):
        if path.relative_to(official / 'images').as_posix() not in kept:
            path.unlink()
    code, _, err = prepare(official, '--classes', classes)
    assert code == 0, err
    for split, text in (('train', TRAIN), ('val', VAL)):
        expected = [line for line in text.splitlines() if int(line.split(',')[1]) < classes]
        assert (tmp_path / 'out' / f'{split}.txt').read_text().splitlines() == expected
    for folder in ('image', 'segmentation'):
        assert len(content(tmp_path / 'out' / folder)) == len(kept)


@pytest.mark.parametrize('name', ['CUB_200_2011', '.'])
def test_archives_give_what_folders_give(official, run_script, tmp_path, name):
    archives = tmp_path / 'archives'
    archives.mkdir()
    for folder, inside in ((official, name), (official.parent / 'segmentations', 'segmentations')):
        with tarfile.open(archives / f'{folder.name}.tgz', 'w:gz') as members:
            members.add(folder, inside)
    for source in (official, archives / 'CUB_200_2011.tgz'):
        code, _, err = run_script(SCRIPT, '--source', source, '--out', tmp_path / source.name)
        assert code == 0, err
    assert content(tmp_path / 'CUB_200_2011.tgz') == content(tmp_path / 'CUB_200_2011')
    assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize(('file', 'line'), [
    ('images.txt', '3'), ('images.txt', '3 ../evil.jpg'), ('image_class_labels.txt', '3 0'),
    ('image_class_labels.txt', '3 x'), ('train_test_split.txt', '3 2'),
    ('bounding_boxes.txt', '3 1.0 2.0 3.0'), ('bounding_boxes.txt', '3 1.0 2.0 0.0 4.0'),
    *((file, None) for file in prepare_cub.FILES)])
def test_a_bad_line_or_a_cut_file_is_refused(official, prepare, tmp_path, file, line):
    lines = (official / file).read_text().splitlines()
    lines[2:] = lines[3:-2] if line is None else [line, *lines[3:]]
    (official / file).write_text('\n'.join(lines))
    refused(prepare(official), '/CUB_200_2011')
    assert not (tmp_path / 'out').exists()


def test_an_archive_that_reaches_out_is_refused(prepare, tmp_path):
    with tarfile.open(tmp_path / 'evil.tgz', 'w:gz') as members:
        members.addfile(tarfile.TarInfo('../evil'))
    refused(prepare(tmp_path / 'evil.tgz'), 'cannot unpack', 'evil.tgz')
    assert [path.name for path in tmp_path.rglob('*')] == ['evil.tgz']


@pytest.mark.parametrize(('folder', 'suffix'), [('CUB_200_2011/images', '.jpg'),
                                                ('segmentations', '.png')])
def test_missing_files_are_named(official, prepare, tmp_path, folder, suffix):
    name = rows()[4][1].replace('.jpg', suffix)
    (official.parent / folder / name).unlink()
    refused(prepare(official), name)
    assert not (tmp_path / 'out' / 'train.txt').exists()
    refused(prepare(tmp_path / 'none'), 'cannot unpack')
