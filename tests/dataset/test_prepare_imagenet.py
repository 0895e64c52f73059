"""dataset/prepare_imagenet.py: an ILSVRC2012 tree, in its usual shapes, becomes lists and boxes."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import encoded, refused

from utils.imagenet import WNIDS as WNIDS_FILE
from utils.imagenet import imagenet_images

SCRIPT = 'dataset/prepare_imagenet.py'
WNIDS = WNIDS_FILE.read_text().split()
TENCH, GOLDFISH, SHARK, LAST = *WNIDS[:3], WNIDS[999]
TRAIN = ((TENCH, 10), (TENCH, 18), (TENCH, 2), (GOLDFISH, 7), (LAST, 5), (LAST, 6))
TRAIN_LIST = [f'{wnid}/{wnid}_{number}.JPEG {WNIDS.index(wnid)}' for wnid, number in TRAIN]
VAL = {1: GOLDFISH, 2: LAST, 3: TENCH, 4: TENCH}
VAL_LIST = [f'ILSVRC2012_val_{number:08d}.JPEG {WNIDS.index(wnid)}' for number, wnid in VAL.items()]
BOXES = 'Annotations/CLS-LOC/val'


def write(path: Path, content: str | bytes = '') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def xml(*wnids: str) -> str:
    objects = ''.join(f'<object><name>{wnid}</name><bndbox><xmin>1</xmin><ymin>2</ymin>'
                      '<xmax>30</xmax><ymax>40</ymax></bndbox></object>' for wnid in wnids)
    return f'<annotation><folder>val</folder>{objects}</annotation>'


@pytest.fixture
def make_source(tmp_path):
    """make_source(nested=, boxes=, images=) -> an ILSVRC tree of a few images."""

    def make(nested: bool = False, boxes: str = BOXES, images: str = '.') -> Path:
        source = tmp_path / 'source'
        for wnid, number in TRAIN:
            write(source / images / 'train' / wnid / f'{wnid}_{number}.JPEG', f'{number}')
        for number, wnid in VAL.items():
            name = f'ILSVRC2012_val_{number:08d}'
            write(source / images / 'val' / (wnid if nested else '.') / f'{name}.JPEG',
                  encoded(np.full((50, 50), number, np.uint8)))
            write(source / boxes / f'{name}.xml', xml(wnid))
        return source

    return make


@pytest.fixture
def prepare(run_script, tmp_path):
    """prepare(source, ...) -> (exit code, stdout, stderr); the result is in tmp_path/out."""
    return lambda source, *more: run_script(SCRIPT, '--source', source, '--out', tmp_path / 'out',
                                            *more)


def content(folder: Path) -> dict[str, bytes]:
    return {Path(parent, name).relative_to(folder).as_posix(): Path(parent, name).read_bytes()
            for parent, _, names in os.walk(folder, followlinks=True) for name in names}


def check(out: Path) -> None:
    assert (out / 'train.txt').read_text().splitlines() == TRAIN_LIST
    assert (out / 'val.txt').read_text().splitlines() == VAL_LIST
    assert all((out / 'train' / line.split()[0]).is_file() for line in TRAIN_LIST)
    for number in VAL:
        image = (out / f'val/ILSVRC2012_val_{number:08d}.JPEG').read_bytes()
        assert image == encoded(np.full((50, 50), number, np.uint8))
    assert [box.tolist() for box in imagenet_images(out, 'val.txt', 1000, 'val', True).boxes] == [
        [[1, 2, 30, 40]]] * len(VAL)


@pytest.mark.parametrize('shape', [
    {}, {'nested': True}, {'images': 'Data/CLS-LOC'}, {'boxes': 'Annotations'},
    {'nested': True, 'boxes': f'Annotations/val/{TENCH}', 'images': 'Data/CLS-LOC'},
    {'boxes': '../bbox/val'},
])
def test_shapes_of_the_tree(make_source, prepare, tmp_path, monkeypatch, shape):
    source = make_source(**shape)
    for path in ('README', f'{TENCH}/._hidden.JPEG', f'{TENCH}/other.png', '@eaDir/thumb.JPEG'):
        write(source / shape.get('images', '.') / 'train' / path)
    before = content(source)
    monkeypatch.chdir(tmp_path)  # a relative source gives links that hold
    more = ['--boxes', 'bbox'] if 'bbox' in shape.get('boxes', '') else []
    code, out, err = prepare('source', *more)
    assert code == 0, err
    assert 'train: 6 images of 3 classes' in out
    assert 'val: 4 images, 4 with boxes' in out
    monkeypatch.chdir('/')
    check(tmp_path / 'out')
    assert content(source) == before


def test_the_class_is_that_of_the_folder_else_of_the_first_object(make_source, prepare, tmp_path):
    source = make_source()
    write(source / BOXES / 'ILSVRC2012_val_00000001.xml', xml(SHARK, TENCH))
    (source / BOXES / 'ILSVRC2012_val_00000002.xml').unlink()
    write(source / BOXES / 'ILSVRC2012_val_00000003.xml', xml('dog'))
    (source / 'val' / GOLDFISH).mkdir()
    name = 'ILSVRC2012_val_00000004.JPEG'
    (source / 'val' / name).rename(source / 'val' / GOLDFISH / name)
    code, out, _ = prepare(source)
    assert (code, 'val: 2 images, 3 with boxes; 2 are left out' in out) == (0, True)
    assert (tmp_path / 'out' / 'val.txt').read_text().splitlines() == [
        'ILSVRC2012_val_00000001.JPEG 2', f'{name} 1']


@pytest.mark.parametrize(('change', 'words'), [
    (lambda source: write(source / 'train/n00000000/1.JPEG'), 'train/n00000000: not one of'),
    (lambda source: write(source / BOXES / 'ILSVRC2012_val_00000002.xml', 'no XML'),
     'is not a valid PASCAL VOC XML file'),
    (lambda source: shutil.rmtree(source / 'train'), 'source/train'),
    (lambda source: shutil.rmtree(source / 'Annotations'), 'check --boxes'),
])
def test_bad_input(make_source, prepare, tmp_path, change, words):
    source = make_source()
    change(source)
    refused(prepare(source), words)
    assert not (tmp_path / 'out' / 'val.txt').exists()
