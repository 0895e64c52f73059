"""Image lists in both layouts: what they hold when they are good, and what is said when not."""

import numpy as np
import pytest
from conftest import complaint, write_image
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import imagenet, lists
from utils.errors import InputError
from utils.imagenet import imagenet_images, read_xml_objects
from utils.lists import cub_images

GOOD = 'a/1.jpg,0,10 20 30 40\n'


@pytest.fixture(scope='module')
def read(tmp_path_factory):
    """read(text or bytes, classes=5, layout=cub_images) -> the ImageList. The images are not
    there, and so not looked at."""
    folder = tmp_path_factory.mktemp('lists')

    def call(content, classes=5, layout=cub_images):
        (folder / 'list.txt').write_bytes(content if isinstance(content, bytes)
                                          else content.encode())
        with pytest.MonkeyPatch.context() as patch:
            for module in (lists, imagenet):
                patch.setattr(module, 'checked', lambda images, datapath: images)
            return layout(folder, 'list.txt', classes)

    return call


# ---------------------------------------------------------------- the CUB layout


def test_a_line_gives_name_label_and_box(read):
    images = read('a/1.jpg,0,10 20 30 40\nb/2.jpg,4,1.5 2 3.25 4\n')
    assert list(images.names) == ['a/1.jpg', 'b/2.jpg']
    assert images.labels.tolist() == [0, 4]
    assert images.labels.dtype == np.int64
    assert [boxes.tolist() for boxes in images.boxes] == [[[10, 20, 30, 40]], [[1.5, 2, 3.25, 4]]]
    assert read('a/1.jpg,0\nb/2.jpg,3\n').boxes is None


@pytest.mark.parametrize(('line', 'name'), [
    ('a b.jpg ,1, 1 2 3 4 ', 'a b.jpg'), ('a b.jpg, 1 ,1  2 3\t4', 'a b.jpg'),
    ('./a b.jpg,1,1 2 3 4', 'a b.jpg'), ('a..b/..c.jpg,1,1 2 3 4', 'a..b/..c.jpg'),
    ('\ufeffa.jpg,1,1 2 3 4', 'a.jpg'), ('\r\n  \r\na.jpg,1,1 2 3 4\r', 'a.jpg')])
def test_spaces_and_line_ends_change_nothing(read, line, name):
    images = read(line)
    assert list(images.names) == [name]
    assert images.labels.tolist() == [1]
    assert images.boxes[0].tolist() == [[1, 2, 3, 4]]


def test_lines_of_one_image_are_one_image_with_several_boxes(read, capsys):
    """In the order of first lines, however far apart they are."""
    images = read('b.jpg,1,0 0 5 5\na.jpg,0,1 1 2 2\n./b.jpg,1,6 6 9 9\nc.jpg,1,0 0 1 1\n'
                  'b.jpg,1,2 2 3 3,4 4 5 5\n')
    assert list(images.names) == ['b.jpg', 'a.jpg', 'c.jpg']
    assert images.labels.tolist() == [1, 0, 1]
    assert [boxes.tolist() for boxes in images.boxes] == [
        [[0, 0, 5, 5], [6, 6, 9, 9], [2, 2, 3, 3], [4, 4, 5, 5]], [[1, 1, 2, 2]], [[0, 0, 1, 1]]]
    assert '5 lines are of 3 images' in capsys.readouterr().err


BAD_NAMES = ['', '../a.jpg', 'a/../../b.jpg', '..', '/etc/passwd', 'a\\b.jpg', 'a\0b.jpg']
BAD_LABELS = ['5', '-1', '', 'bird', '1.0', '²', '٣', '0_1', '9' * 4000]
BAD_BOXES = ['1 2 3', '1 2 3 4 5', '', '1 2 3 four', '1 2 nan 4', '1 2 inf 4', '1 2 1e400 4',
             '3 2 3 4', '1 4 3 4', '3 4 1 2', '1 2 3 4,5']
BAD_LINES = ['a.jpg', *(f'{name},0,1 2 3 4' for name in BAD_NAMES),
             *(f'a.jpg,{label},1 2 3 4' for label in BAD_LABELS),
             *(f'a.jpg,0,{box}' for box in BAD_BOXES)]


@pytest.mark.parametrize('line', BAD_LINES, ids=lambda line: line[:20])
def test_a_bad_line_is_refused_with_its_file_and_number(read, line):
    """Blank lines count: the bad one is the third."""
    assert 'list.txt, line 3: ' in complaint(read, f'{GOOD}\n{line}\n{GOOD}')


@pytest.mark.parametrize(('content', 'advice'), [
    ('a/b.jpg\t0\t1 2 3 4', 'expected `name,label,xmin ymin xmax ymax`'),
    ('a\\b.jpg,0', 'without backslashes'), ('a.jpg,5', 'if the labels count from 1, subtract 1'),
    ('a.jpg,0,1,2,3,4', 'four numbers with spaces between'),
    ('a.jpg,0'.encode('utf-16'), 'save it as UTF-8'), (b'a.jpg,\xff,1 2 3 4\n', 'line 1'),
    (GOOD + '\na/1.png,0,1 2 3 4\n', 'line 3: a/1.png of class 0, after a/1.jpg of class 0'),
    (GOOD + GOOD.replace(',0,', ',1,'), 'line 2: a/1.jpg of class 1, after a/1.jpg of class 0'),
    (GOOD + 'b.jpg,0\n', '1 of 2 images have no box, the first is b.jpg'),
    ('b.jpg,0\n' + GOOD, '1 of 2 images have no box, the first is b.jpg'),
    (' \r\n\t\n', 'list.txt is empty'),
])
def test_a_list_of_another_kind_is_told_what_to_do(read, content, advice):
    assert advice in complaint(read, content)


# ---------------------------------------------------------------- what is there beside the list


def cub_folder(folder, *boxes, size=(60, 80), lines=None):
    """Images of `size` (height, width), a box each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, _ in enumerate(boxes):
        write_image(folder / 'image' / f'{number}.jpg', np.zeros((*size, 3), np.uint8))
    (folder / 'val.txt').write_text(''.join(
        f'{number}.jpg,0,{box}\n' for number, box in enumerate(boxes)))
    return folder


@pytest.mark.parametrize(('boxes', 'said'), [
    (['0.1 0.2 0.5 0.9', '0.3 0.3 0.8 1.0'], 'they are fractions of the image'),
    (['90 10 120 50', '5 5 20 20'], 'lies outside its image of 80 x 60 pixels'),
    (['-30 -20 -1 -1', '5 5 20 20'], 'lies outside its image'),
    (['10 10 160 120'] * 12, '12 of 12 boxes looked at reach far beyond'),
    (['40 30 82 60'] * 9 + ['30 30 110 55'] * 3, '3 of 12 boxes looked at reach far beyond')])
def test_boxes_of_another_scale_are_refused(tmp_path, boxes, said):
    assert said in complaint(cub_images, cub_folder(tmp_path, *boxes), 'val.txt', 1)


@pytest.mark.parametrize(('boxes', 'said'), [
    (['5 5 200 50'] + ['1 1 79 59'] * 9, '1 of 10 boxes looked at reach far beyond'),
    (['5 5 40 30'] * 20, 'no box reaches beyond 50 % of its image'),
    (['-1 -2 82 61'] * 9, ''), (['5 5 79 30'] * 20, ''), (['5 5 40 30'] * 19, '')])
def test_boxes_of_a_doubtful_scale_are_warned_of(tmp_path, capsys, boxes, said):
    """Boxes that stick out by a few pixels are kept as they are."""
    images = cub_images(cub_folder(tmp_path, *boxes), 'val.txt', 1)
    assert len(images) == len(boxes)
    err = capsys.readouterr().err
    assert (said in err) if said else err == ''
    if boxes[0].startswith('-1'):
        assert images.boxes[0].tolist() == [[-1, -2, 82, 61]]


# ---------------------------------------------------------------- the ImageNet layout

OBJECT = ('<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>'
          '<ymax>{}</ymax></bndbox></object>')


def xml(*objects):
    return f'<annotation>{"".join(OBJECT.format(*o) for o in objects)}</annotation>'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'box').mkdir()
    lines = ['ILSVRC2012_val_00000001.JPEG 1', 'ILSVRC2012_val_00033202.JPEG 0',
             'ILSVRC2012_val_00000002.JPEG 0']
    (tmp_path / 'val.txt').write_text('\n'.join(lines))
    for line in lines:
        write_image(tmp_path / 'val' / line[:-2], np.zeros((40, 50, 3), np.uint8))
    (tmp_path / 'box' / 'ILSVRC2012_val_00000001.xml').write_text(xml(
        ('n01443537', 1, 2, 30, 40), ('n01440764', 5, 5, 9, 9), ('\n n01443537\t', 6, 7, 8, 9)))
    (tmp_path / 'box' / 'ILSVRC2012_val_00000002.xml').write_text(xml(('n01443537', 1, 1, 2, 2)))
    return tmp_path


def val_images(folder, classes=1000):
    return imagenet_images(folder, 'val.txt', classes, 'val', boxes=True)


def test_a_val_list_has_the_boxes_of_the_images_class(folder):
    """White space around the class, as pretty-printed XML has it, is no part of it."""
    images = val_images(folder)
    assert images.folder == folder / 'val'
    assert list(images.names) == ['ILSVRC2012_val_00000001.JPEG', 'ILSVRC2012_val_00000002.JPEG']
    assert images.labels.tolist() == [1, 0]
    assert [boxes.tolist() for boxes in images.boxes] == [[[1, 2, 30, 40], [6, 7, 8, 9]], []]
    assert len(imagenet_images(folder, 'val.txt', 1000, 'val')) == 3  # one label is wrong
    (folder / 'wnids.txt').write_text('n01443537\nn01440764\n')
    assert val_images(folder, 2).boxes[1].tolist() == [[1, 1, 2, 2]]  # label 0 is n01443537 now
    (folder / 'box' / 'ILSVRC2012_val_00000001.xml').unlink()
    assert images.boxes[0].shape == (0, 4)


@pytest.mark.parametrize(('line', 'advice'), [
    ('a/b.JPEG,0', 'expected `name label`'), (' 3', 'expected `name label`'),
    ('a.JPEG 5', 'if the labels count from 1, subtract 1'), ('../x.JPEG 3', 'does not stay'),
    ('y.png 0', 'two images have no mask'), ('y.JPEG 2', 'an image has one class')])
def test_bad_lines_of_an_imagenet_list_are_named(read, line, advice):
    message = complaint(read, f'y.JPEG 0\n{line}\n', layout=imagenet_images)
    assert advice in message
    assert 'list.txt, line 2' in message


@pytest.mark.parametrize('text', [
    '', 'no xml', '<annotation>',
    '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]><annotation>&y;</annotation>',
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    '<annotation><object><name>&x;</name></object></annotation>',
    xml(('n1', 5, 5, 5, 9)), xml(('n1', 'a', 5, 6, 9)), xml(('n1', 'nan', 5, 6, 9)),
    '<annotation><object><name>n1</name></object></annotation>'])
def test_bad_xml_is_refused(tmp_path, text):
    (tmp_path / 'a.xml').write_text(text)
    assert 'a.xml' in complaint(read_xml_objects, tmp_path / 'a.xml')


# ---------------------------------------------------------------- any content

fragments = st.sampled_from([',', ' ', '\n', '\r', '0', '7', '-', '.', '..', '/', 'nan', '1e9',
                             'a.jpg', '\0', '\\', '²', '\ufeff', '\u2028', '1 2 3 4'])
contents = st.one_of(st.binary(max_size=200), st.text(max_size=100).map(
    lambda text: text.encode(errors='surrogatepass')),
    st.lists(fragments, max_size=30).map(lambda some: ''.join(some).encode()))


@settings(deadline=None, max_examples=300)
@given(contents, st.sampled_from([cub_images, imagenet_images]))
def test_any_content_is_either_a_sound_list_or_an_input_error(read, content, layout):
    try:
        images = read(content, layout=layout)
    except InputError:
        return
    assert len(images) == len(images.names) > 0
    assert ((images.labels >= 0) & (images.labels < 5)).all()
    assert images.boxes is None or all((box[:, 2:] > box[:, :2]).all() for box in images.boxes)
    for index in range(len(images)):
        inside = images.path(index).resolve()
        assert inside.is_relative_to(images.folder.resolve())
        assert inside != images.folder.resolve()
