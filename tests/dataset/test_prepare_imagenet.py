"""dataset/prepare_imagenet.py: an ILSVRC2012 tree, in its usual shapes, becomes lists and boxes."""

import os
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'dataset'))

import prepare_imagenet
from prepare_imagenet import object_wnids, resolve_wnid

from utils.data.lists import read_imagenet_list, read_wnids
from utils.errors import InputError

WNIDS = read_wnids(prepare_imagenet.WNIDS)
TENCH, GOLDFISH, SHARK = WNIDS[:3]
TRAIN = {TENCH: [18, 2, 10], GOLDFISH: [7], WNIDS[999]: [5, 6]}
TRAIN_LIST = [f'{TENCH}/{TENCH}_10.JPEG 0', f'{TENCH}/{TENCH}_18.JPEG 0',
              f'{TENCH}/{TENCH}_2.JPEG 0', f'{GOLDFISH}/{GOLDFISH}_7.JPEG 1',
              f'{WNIDS[999]}/{WNIDS[999]}_5.JPEG 999', f'{WNIDS[999]}/{WNIDS[999]}_6.JPEG 999']
VAL = {1: GOLDFISH, 2: WNIDS[999], 3: TENCH, 4: TENCH}
VAL_LIST = [f'ILSVRC2012_val_{number:08d}.JPEG {WNIDS.index(wnid)}' for number, wnid in VAL.items()]


def val_name(number: int) -> str:
    return f'ILSVRC2012_val_{number:08d}'


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def xml(*wnids: str) -> str:
    objects = ''.join(f'<object><name>{wnid}</name><bndbox><xmin>1</xmin><ymin>2</ymin>'
                      '<xmax>30</xmax><ymax>40</ymax></bndbox></object>' for wnid in wnids)
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
            write(folder / f'{val_name(number)}.JPEG', f'val {number}')
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
    for line in TRAIN_LIST:
        assert (out / 'train' / line.split()[0]).is_file()
    for number, wnid in VAL.items():
        assert (out / 'val' / f'{val_name(number)}.JPEG').read_text() == f'val {number}'
        assert object_wnids(out / 'box' / f'{val_name(number)}.xml') == [wnid]
    assert not (out / 'disagreements.txt').exists()


# ---------------------------------------------------------------- shapes of the tree


@pytest.mark.parametrize('shape', [
    {},
    {'nested': True},
    {'images': 'Data/CLS-LOC'},
    {'boxes': 'Annotations'},
    {'nested': True, 'boxes': f'Annotations/val/{TENCH}', 'images': 'Data/CLS-LOC'},
])
def test_shapes_of_the_tree(make_source, prepare, tmp_path, shape):
    source = make_source(**shape)
    before = content(source)
    prepare('--source', source, '--out', tmp_path / 'out')
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
        write(tmp_path / 'bbox' / 'val' / f'{val_name(number)}.xml', xml(wnid, wnid))
    write(tmp_path / 'bbox' / 'train' / 'n1_1.xml', 'not looked at')
    prepare('--source', source, '--out', tmp_path / 'out', '--boxes', tmp_path / 'bbox')
    assert_prepared(tmp_path / 'out')
    assert len(list((tmp_path / 'out' / 'box').iterdir())) == len(VAL)


def test_a_relative_source_gives_links_that_hold(make_source, prepare, tmp_path, monkeypatch):
    make_source(nested=True)
    monkeypatch.chdir(tmp_path)
    prepare('--source', 'source', '--out', 'out')
    monkeypatch.chdir('/')
    assert_prepared(tmp_path / 'out')


def test_the_list_reader_reads_the_lists(make_source, prepare, tmp_path):
    prepare('--source', make_source(), '--out', tmp_path / 'out')
    images = read_imagenet_list(tmp_path / 'out' / 'val.txt', 1000, boxes=tmp_path / 'out' / 'box',
                                wnids=WNIDS)
    assert list(images.labels) == [WNIDS.index(wnid) for wnid in VAL.values()]
    assert [box.tolist() for box in images.boxes] == [[[1, 2, 30, 40]]] * len(VAL)


@pytest.mark.parametrize('nested', [False, True])
def test_other_files_are_counted(make_source, prepare, tmp_path, capsys, nested):
    source = make_source(nested=nested)
    folder = next((source / 'val').iterdir()) if nested else source / 'val'
    write(folder / 'ILSVRC2012_val_00000099.jpg', '')
    write(folder / 'ILSVRC2012_val_00000098.png', '')
    write(source / 'train' / 'README', '')
    write(source / 'train' / TENCH / '._hidden.JPEG', '')
    write(source / 'train' / TENCH / 'images' / 'deeper.JPEG', '')
    prepare('--source', source, '--out', tmp_path / 'out')
    assert_prepared(tmp_path / 'out')
    printed = capsys.readouterr().out
    assert 'train: 6 images of 3 classes; val: 4 images, 4 with boxes' in printed
    assert 'train: 3 other files' in printed
    assert 'val: 2 other files, which are in no list: images end in .JPEG' in printed


# ---------------------------------------------------------------- restarts


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


def test_an_interrupted_run_leaves_no_list_and_the_next_finishes(make_source, prepare, tmp_path,
                                                                 monkeypatch):
    arguments = ('--source', make_source(nested=True), '--out', tmp_path / 'out')
    scan = prepare_imagenet.scan

    def interrupted(folder):
        if folder.name == WNIDS[999]:
            raise KeyboardInterrupt
        return scan(folder)

    monkeypatch.setattr(prepare_imagenet, 'scan', interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(*arguments)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['train']
    monkeypatch.setattr(prepare_imagenet, 'scan', scan)
    prepare(*arguments)
    assert_prepared(tmp_path / 'out')


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


def test_another_train_folder_is_not_replaced(make_source, prepare, tmp_path):
    write(tmp_path / 'out' / 'train' / 'mine', '')
    with pytest.raises(InputError, match='move it away'):
        prepare('--source', make_source(), '--out', tmp_path / 'out')
    assert (tmp_path / 'out' / 'train' / 'mine').is_file()


# ---------------------------------------------------------------- labels of val images


@pytest.mark.parametrize(('folder', 'wnids', 'expected', 'conflicts'), [
    (TENCH, [TENCH], TENCH, 0),
    (None, [TENCH], TENCH, 0),
    (TENCH, [GOLDFISH], TENCH, 1),
    (TENCH, [GOLDFISH, TENCH], TENCH, 1),
    (TENCH, [GOLDFISH, SHARK], TENCH, 2),
    (None, [GOLDFISH, TENCH], GOLDFISH, 1),
    (TENCH, None, TENCH, 1),
    (TENCH, [], TENCH, 1),
    (None, None, None, 2),
    (None, [], None, 2),
])
def test_class_of_a_val_image(folder, wnids, expected, conflicts):
    wnid, found = resolve_wnid(folder, wnids)
    assert wnid == expected
    assert len(found) == conflicts


def test_disagreements_are_counted_and_named(make_source, prepare, tmp_path, capsys):
    source = make_source(nested=True)
    boxes = source / 'Annotations' / 'CLS-LOC' / 'val'
    write(boxes / f'{val_name(1)}.xml', xml(TENCH))
    write(boxes / f'{val_name(2)}.xml', xml(WNIDS[999], SHARK))
    (boxes / f'{val_name(3)}.xml').unlink()
    prepare('--source', source, '--out', tmp_path / 'out')
    assert (tmp_path / 'out' / 'val.txt').read_text().splitlines() == VAL_LIST
    named = (tmp_path / 'out' / 'disagreements.txt').read_text().splitlines()
    assert [line.split('.')[0] for line in named] == [val_name(1), val_name(2), val_name(3)]
    printed = capsys.readouterr().out
    for oddity in (prepare_imagenet.FOLDER_DIFFERS, prepare_imagenet.SEVERAL_CLASSES,
                   prepare_imagenet.NO_XML):
        assert f'val: 1 images: {oddity}' in printed
    write(boxes / f'{val_name(1)}.xml', xml(GOLDFISH))
    write(boxes / f'{val_name(2)}.xml', xml(WNIDS[999]))
    write(boxes / f'{val_name(3)}.xml', xml(TENCH))
    prepare('--source', source, '--out', tmp_path / 'out')
    assert not (tmp_path / 'out' / 'disagreements.txt').exists()


def test_without_folder_and_xml_an_image_is_left_out(make_source, prepare, tmp_path):
    source = make_source()
    (source / 'Annotations' / 'CLS-LOC' / 'val' / f'{val_name(2)}.xml').unlink()
    prepare('--source', source, '--out', tmp_path / 'out')
    kept = [line for line in VAL_LIST if val_name(2) not in line]
    assert (tmp_path / 'out' / 'val.txt').read_text().splitlines() == kept
    assert 'skipped' in (tmp_path / 'out' / 'disagreements.txt').read_text()


def test_a_flat_val_without_any_xml_is_bad_input(make_source, prepare, tmp_path):
    with pytest.raises(InputError, match='check --boxes'):
        prepare('--source', make_source(boxes=None), '--out', tmp_path / 'out')
    assert not (tmp_path / 'out' / 'val.txt').exists()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize('folder', ['train', 'val'])
def test_an_unknown_wnid_folder_is_named(make_source, prepare, tmp_path, folder):
    source = make_source(nested=True)
    (source / folder / 'n00000000').mkdir()
    with pytest.raises(InputError, match=f'{folder}/n00000000: not one of'):
        prepare('--source', source, '--out', tmp_path / 'out')


def test_an_unknown_wnid_in_an_xml_is_named(make_source, prepare, tmp_path):
    source = make_source()
    write(source / 'Annotations' / 'CLS-LOC' / 'val' / f'{val_name(2)}.xml', xml('dog'))
    with pytest.raises(InputError, match=rf"{val_name(2)}\.xml: its object 'dog'"):
        prepare('--source', source, '--out', tmp_path / 'out')


def test_an_image_in_two_classes_is_named(make_source, prepare, tmp_path):
    source = make_source(nested=True)
    write(source / 'val' / SHARK / f'{val_name(1)}.JPEG', '')
    with pytest.raises(InputError, match=f'{val_name(1)}.JPEG is in .*{GOLDFISH} and in .*{SHARK}'):
        prepare('--source', source, '--out', tmp_path / 'out')


@pytest.mark.parametrize('name', [f'{TENCH} 1.JPEG', f'{TENCH}\n1.JPEG', f'{TENCH}_\udc80.JPEG'])
def test_a_name_that_no_list_can_hold_is_bad_input(make_source, prepare, tmp_path, name):
    source = make_source()
    (source / 'train' / TENCH / name).touch()
    with pytest.raises(InputError, match='rename it') as caught:
        prepare('--source', source, '--out', tmp_path / 'out')
    str(caught.value).encode()
    assert not (tmp_path / 'out' / 'train.txt').exists()


@pytest.mark.parametrize('folder', ['train', 'val'])
def test_a_missing_folder_is_named(make_source, prepare, tmp_path, folder):
    source = make_source()
    (source / folder).rename(tmp_path / 'elsewhere')
    with pytest.raises(InputError, match=f'source/{folder} '):
        prepare('--source', source, '--out', tmp_path / 'out')


def test_an_empty_tree_is_bad_input(prepare, tmp_path):
    (tmp_path / 'source' / 'train').mkdir(parents=True)
    with pytest.raises(InputError, match='no <wnid>/'):
        prepare('--source', tmp_path / 'source', '--out', tmp_path / 'out')


def test_command_line(make_source, run_script, tmp_path):
    script, source = 'dataset/prepare_imagenet.py', make_source()
    assert run_script(script, '--source', source, '--out', tmp_path / 'out')[0] == 0
    code, _, errors = run_script(script, '--source', source, '--boxes', tmp_path / 'no')
    assert code == 2
    assert errors.startswith('error: no folder')
    assert errors.count('\n') == 1


# ---------------------------------------------------------------- XML


LAUGHS = ('<!DOCTYPE a [<!ENTITY b "ha">' + ''.join(
    f'<!ENTITY {name} "{f"&{earlier};" * 10}">' for earlier, name in zip('bcdefgh', 'cdefghi',
                                                                         strict=True))
    + ']><annotation><object><name>&i;</name></object></annotation>')
EXTERNAL = ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
            '<annotation><object><name>&b;</name></object></annotation>')
FOREIGN_DTD = '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/a.dtd"><annotation/>'


@pytest.mark.parametrize('text', [LAUGHS, EXTERNAL, FOREIGN_DTD, '', '<annotation>', 'no xml',
                                  '<?xml version="1.0" encoding="nonsense"?><annotation/>',
                                  '<annotation>\x00</annotation>'])
def test_a_bad_xml_is_refused_and_named(make_source, prepare, tmp_path, text):
    source = make_source()
    write(source / 'Annotations' / 'CLS-LOC' / 'val' / f'{val_name(2)}.xml', text)
    with pytest.raises(InputError, match=rf'{val_name(2)}\.xml is not a valid PASCAL VOC XML file'):
        prepare('--source', source, '--out', tmp_path / 'out')
    assert not (tmp_path / 'out' / 'val.txt').exists()
    assert not (tmp_path / 'out' / 'box' / f'{val_name(2)}.xml').exists()


@pytest.fixture(scope='module')
def xml_file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('xml') / 'a.xml'


MARKUP = st.text(alphabet='<>/&;!annotaionbject"= \n').map(str.encode)


@given(content=st.binary(max_size=200) | MARKUP)
def test_any_bytes_are_objects_or_bad_input(xml_file, content):
    xml_file.write_bytes(content)
    try:
        wnids = object_wnids(xml_file)
    except InputError:
        return
    assert len(wnids) == len(set(wnids))


@given(names=st.lists(st.text(st.characters(codec='utf-8', exclude_categories=['C', 'Z']),
                              min_size=1), max_size=5))
def test_object_names_come_back_each_once(xml_file, names):
    xml_file.write_text(xml(*map(escape, names)), encoding='utf-8')
    assert object_wnids(xml_file) == list(dict.fromkeys(names))
