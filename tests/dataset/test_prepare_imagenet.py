"""dataset/prepare_imagenet.py: an ILSVRC2012 tree, in its usual shapes, becomes lists and boxes."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

import prepare_imagenet
from prepare_imagenet import resolve_wnid

from utils.errors import InputError
from utils.lists import WNIDS as WNIDS_FILE
from utils.lists import imagenet_images

WNIDS = WNIDS_FILE.read_text().split()
TENCH, GOLDFISH, SHARK, LAST = *WNIDS[:3], WNIDS[999]
TRAIN = {TENCH: [18, 2, 10], GOLDFISH: [7], LAST: [5, 6]}
TRAIN_LIST = [f'{wnid}/{wnid}_{number}.JPEG {WNIDS.index(wnid)}'
              for wnid, number in ((TENCH, 10), (TENCH, 18), (TENCH, 2), (GOLDFISH, 7), (LAST, 5),
                                   (LAST, 6))]
VAL = {1: GOLDFISH, 2: LAST, 3: TENCH, 4: TENCH}
VAL_LIST = [f'ILSVRC2012_val_{number:08d}.JPEG {WNIDS.index(wnid)}' for number, wnid in VAL.items()]
JPEG = cv2.imencode('.jpg', np.zeros((50, 50, 3), np.uint8))[1].tobytes()


def val_name(number: int) -> str:
    return f'ILSVRC2012_val_{number:08d}'


def write(path: Path, content: str | bytes = '') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def xml(*wnids: str, side: int = 40) -> str:
    objects = ''.join(f'<object><name>{wnid}</name><bndbox><xmin>1</xmin><ymin>2</ymin>'
                      f'<xmax>30</xmax><ymax>{side}</ymax></bndbox></object>' for wnid in wnids)
    return f'<annotation><folder>val</folder>{objects}</annotation>'


@pytest.fixture
def make_source(tmp_path):
    """make_source(nested=, boxes=, images=) -> an ILSVRC tree of a few images."""

    def make(nested: bool = False, boxes: str | None = 'Annotations/CLS-LOC/val',
             images: str = '.') -> Path:
        source = tmp_path / 'source'
        for wnid, numbers in TRAIN.items():
            for number in numbers:
                write(source / images / 'train' / wnid / f'{wnid}_{number}.JPEG', f'{number}')
        for number, wnid in VAL.items():
            folder = source / images / 'val' / (wnid if nested else '.')
            write(folder / f'{val_name(number)}.JPEG', JPEG + bytes([number]))
            if boxes:
                write(source / boxes / f'{val_name(number)}.xml', xml(wnid))
        return source

    return make


@pytest.fixture
def prepare(monkeypatch):
    """prepare('--source', ...) runs the program in this process."""

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['prepare_imagenet.py', *map(str, arguments)])
        prepare_imagenet.main()

    return call


def content(folder: Path) -> dict[str, bytes]:
    return {Path(parent, name).relative_to(folder).as_posix(): Path(parent, name).read_bytes()
            for parent, _, names in os.walk(folder, followlinks=True) for name in names}


def assert_prepared(out: Path) -> None:
    assert (out / 'train.txt').read_text().splitlines() == TRAIN_LIST
    assert (out / 'val.txt').read_text().splitlines() == VAL_LIST
    assert all((out / 'train' / line.split()[0]).is_file() for line in TRAIN_LIST)
    for number in VAL:
        assert (out / 'val' / f'{val_name(number)}.JPEG').read_bytes() == JPEG + bytes([number])
    assert [box.tolist() for box in imagenet_images(out, 'val.txt', 1000, 'val', True).boxes] == [
        [[1, 2, 30, 40]]] * len(VAL)
    assert not (out / 'disagreements.txt').exists()


# ---------------------------------------------------------------- shapes of the tree


@pytest.mark.parametrize('shape', [
    {}, {'nested': True}, {'images': 'Data/CLS-LOC'}, {'boxes': 'Annotations'},
    {'nested': True, 'boxes': f'Annotations/val/{TENCH}', 'images': 'Data/CLS-LOC'},
])
def test_shapes_of_the_tree(make_source, prepare, tmp_path, monkeypatch, shape):
    source = make_source(**shape)
    before = content(source)
    monkeypatch.chdir(tmp_path)  # a relative source gives links that hold
    prepare('--source', 'source', '--out', 'out')
    monkeypatch.chdir('/')
    assert_prepared(tmp_path / 'out')
    assert content(source) == before


@pytest.mark.parametrize('nested', [False, True])
def test_the_source_itself_can_be_filled_twice(make_source, prepare, nested):
    source = make_source(nested)
    prepare('--source', source, '--out', source)
    assert_prepared(source)
    first = content(source)
    prepare('--source', source, '--out', source)
    assert content(source) == first


def test_boxes_of_another_folder(make_source, prepare, tmp_path):
    source = make_source(boxes=None)
    for number, wnid in VAL.items():
        write(tmp_path / 'bbox' / 'val' / f'{val_name(number)}.xml', xml(wnid))
    write(tmp_path / 'bbox' / 'train' / 'n1_1.xml', 'not looked at')
    prepare('--source', source, '--out', tmp_path / 'out', '--boxes', tmp_path / 'bbox')
    assert_prepared(tmp_path / 'out')
    assert len(list((tmp_path / 'out' / 'box').iterdir())) == len(VAL)


@pytest.mark.parametrize('nested', [False, True])
def test_other_files_are_counted(make_source, prepare, tmp_path, capsys, nested):
    source = make_source(nested=nested)
    folder = next((source / 'val').iterdir()) if nested else source / 'val'
    for path in (folder / 'ILSVRC2012_val_00000099.jpg', folder / 'ILSVRC2012_val_00000098.png',
                 source / 'train' / 'README', source / 'train' / TENCH / '._hidden.JPEG',
                 source / 'train' / TENCH / 'images' / 'deeper.JPEG',
                 source / 'train' / '@eaDir' / 'thumbnail.JPEG'):
        write(path)
    prepare('--source', source, '--out', tmp_path / 'out')
    assert_prepared(tmp_path / 'out')
    printed = capsys.readouterr().out
    assert 'train: 6 images of 3 classes, and 3 other files' in printed
    assert ('val: 4 images, 4 with boxes, and 2 other files, which are in no list: images end in '
            '.JPEG') in printed


@pytest.mark.parametrize('nested', [False, True])
def test_a_second_run_changes_nothing_and_mends_what_is_gone(make_source, prepare, tmp_path,
                                                             nested):
    arguments = ('--source', make_source(nested), '--out', tmp_path / 'out')
    prepare(*arguments)
    first = content(tmp_path / 'out')
    prepare(*arguments)
    assert content(tmp_path / 'out') == first
    (tmp_path / 'out' / 'train').unlink()
    (tmp_path / 'out' / 'val.txt').unlink()
    for number in (1, 3):
        (tmp_path / 'out' / 'box' / f'{val_name(number)}.xml').unlink()
        if nested:
            (tmp_path / 'out' / 'val' / f'{val_name(number)}.JPEG').unlink()
    prepare(*arguments)
    assert content(tmp_path / 'out') == first


def test_a_val_that_was_flat_and_now_has_folders(make_source, prepare, tmp_path):
    source = make_source()
    prepare('--source', source, '--out', tmp_path / 'out')
    for number, wnid in VAL.items():
        name = f'{val_name(number)}.JPEG'
        (source / 'val' / wnid).mkdir(exist_ok=True)
        (source / 'val' / name).rename(source / 'val' / wnid / name)
    before = content(source)
    prepare('--source', source, '--out', tmp_path / 'out')
    assert_prepared(tmp_path / 'out')
    assert content(source) == before


# ---------------------------------------------------------------- labels of val images


@pytest.mark.parametrize(('folder', 'wnids', 'expected', 'conflicts'), [
    (TENCH, [TENCH, TENCH], TENCH, 0), ('', [TENCH], TENCH, 0), (TENCH, [GOLDFISH], TENCH, 1),
    (TENCH, [GOLDFISH, TENCH], TENCH, 1), (TENCH, [GOLDFISH, SHARK], TENCH, 2),
    ('', [GOLDFISH, TENCH], GOLDFISH, 1), (TENCH, None, TENCH, 1), (TENCH, [], TENCH, 1),
    ('', None, '', 2), ('', [], '', 2),
])
def test_class_of_a_val_image(folder, wnids, expected, conflicts):
    wnid, found = resolve_wnid(folder, wnids)
    assert (wnid, len(found)) == (expected, conflicts)


def test_disagreements_are_counted_and_named(make_source, prepare, tmp_path, capsys):
    source = make_source(nested=True)
    boxes = source / 'Annotations' / 'CLS-LOC' / 'val'
    write(boxes / f'{val_name(1)}.xml', xml(TENCH))
    write(boxes / f'{val_name(2)}.xml', xml(LAST, SHARK))
    (boxes / f'{val_name(3)}.xml').unlink()
    prepare('--source', source, '--out', tmp_path / 'out')
    assert (tmp_path / 'out' / 'val.txt').read_text().splitlines() == VAL_LIST
    named = (tmp_path / 'out' / 'disagreements.txt').read_text().splitlines()
    assert [line.split('.')[0] for line in named] == [val_name(1), val_name(2), val_name(3)]
    printed = capsys.readouterr().out
    for oddity in ('its folder and its XML name different classes', 'its XML names several classes',
                   'it has no XML'):
        assert f'val: 1 images: {oddity}' in printed
    for number, wnid in VAL.items():
        write(boxes / f'{val_name(number)}.xml', xml(wnid))
    (tmp_path / 'out' / 'box' / f'{val_name(1)}.xml').write_text(xml(GOLDFISH))
    (tmp_path / 'out' / 'box' / f'{val_name(2)}.xml').write_text(xml(LAST))
    prepare('--source', source, '--out', tmp_path / 'out')
    assert_prepared(tmp_path / 'out')


def test_without_folder_and_xml_an_image_is_left_out(make_source, prepare, tmp_path):
    source = make_source()
    (source / 'Annotations' / 'CLS-LOC' / 'val' / f'{val_name(2)}.xml').unlink()
    prepare('--source', source, '--out', tmp_path / 'out')
    kept = [line for line in VAL_LIST if val_name(2) not in line]
    assert (tmp_path / 'out' / 'val.txt').read_text().splitlines() == kept
    assert 'skipped' in (tmp_path / 'out' / 'disagreements.txt').read_text()


# ---------------------------------------------------------------- bad input


LAUGHS = ('<!DOCTYPE a [<!ENTITY b "ha">' + ''.join(
    f'<!ENTITY {name} "{f"&{earlier};" * 10}">' for earlier, name in zip('bcdefgh', 'cdefghi',
                                                                         strict=True))
    + ']><annotation><object><name>&i;</name></object></annotation>')
EXTERNAL = ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
            '<annotation><object><name>&b;</name></object></annotation>')
XML = f'Annotations/CLS-LOC/val/{val_name(2)}.xml'
NOT_XML = rf'{val_name(2)}\.xml is not a valid PASCAL VOC XML file'


@pytest.mark.parametrize(('path', 'text', 'message'), [
    ('train/n00000000/1.JPEG', '', 'train/n00000000: not one of'),
    ('val/n00000000/1.JPEG', '', 'val/n00000000: not one of'),
    (f'val/{SHARK}/{val_name(1)}.JPEG', '', f'{val_name(1)}.JPEG is in .*{GOLDFISH}.*{SHARK}'),
    (f'train/{TENCH}/{TENCH} 1.JPEG', '', 'rename it'),
    (f'train/{TENCH}/{TENCH}\n1.JPEG', '', 'rename it'),
    (f'train/{TENCH}/{TENCH}_\udc80.JPEG', '', 'rename it'),
    (XML, xml(LAST, side=400).replace('>30<', '>300<').replace('>1<', '>60<'), 'outside its image'),
    *((XML, text, NOT_XML) for text in (
        LAUGHS, EXTERNAL, '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/a.dtd"><annotation/>',
        '', '<annotation>', 'no xml', '<?xml version="1.0" encoding="nonsense"?><annotation/>')),
], ids=lambda value: ascii(str(value))[:30])
def test_bad_input(make_source, prepare, tmp_path, path, text, message):
    source = make_source(nested=True)
    write(source / path, text)
    with pytest.raises(InputError, match=message) as caught:
        prepare('--source', source, '--out', tmp_path / 'out')
    str(caught.value).encode()
    assert not (tmp_path / 'out' / 'val.txt').exists()


@pytest.mark.parametrize(('change', 'message'), [
    (lambda source: (source / 'train').rename(source / 'x'), 'source/train '),
    (lambda source: (source / 'val').rename(source / 'x'), 'source/val '),
    (lambda source: (source / 'Annotations').rename(source / 'x'), 'check --boxes'),
    (lambda source: [path.unlink() for path in (source / 'train').rglob('*.*')], 'no <wnid>/'),
    (lambda source: write(source.parent / 'out' / 'train' / 'mine'), 'move it away'),
])
def test_a_tree_that_lacks_something(make_source, prepare, tmp_path, change, message):
    source = make_source()
    change(source)
    with pytest.raises(InputError, match=message):
        prepare('--source', source, '--out', tmp_path / 'out')
    assert not (tmp_path / 'out' / 'val.txt').exists()


def test_an_unknown_wnid_in_an_xml_is_named(make_source, prepare, tmp_path):
    source = make_source()
    write(source / XML, xml('dog'))
    with pytest.raises(InputError, match=rf"{val_name(2)}\.xml: its object 'dog'"):
        prepare('--source', source, '--out', tmp_path / 'out')


def test_command_line(make_source, run_script, tmp_path):
    script, source = 'dataset/prepare_imagenet.py', make_source()
    assert run_script(script, '--source', source, '--out', tmp_path / 'out')[0] == 0
    code, _, errors = run_script(script, '--source', source, '--boxes', tmp_path / 'no')
    assert (code, errors.count('\n'), errors[:16]) == (2, 1, 'error: no folder')
