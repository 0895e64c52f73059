"""Image lists: what they hold when they are good, and what is said when they are not."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.data.lists import MAX_LINE_LENGTH, read_cub_list, read_imagenet_list
from utils.errors import InputError

GOOD = 'a/1.jpg,0,10 20 30 40\n'


@pytest.fixture(scope='module')
def read(tmp_path_factory):
    """read(text or bytes, classes=5) -> the ImageList."""
    path = tmp_path_factory.mktemp('lists') / 'list.txt'

    def call(content, classes=5):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_cub_list(path, classes)

    return call


def complaint(call, *arguments):
    """The message of the InputError that is raised, which must be one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_line_gives_name_label_and_box(read):
    images = read('a/1.jpg,0,10 20 30 40\nb/2.jpg,4,1.5 2 3.25 4\n')
    assert list(images.names) == ['a/1.jpg', 'b/2.jpg']
    assert images.labels.tolist() == [0, 4]
    assert images.labels.dtype == np.int64
    assert [boxes.tolist() for boxes in images.boxes] == [[[10, 20, 30, 40]], [[1.5, 2, 3.25, 4]]]
    assert len(images) == 2


def test_a_list_without_boxes_has_none(read):
    images = read('a/1.jpg,0\nb/2.jpg,3\n')
    assert images.boxes is None
    assert images.labels.tolist() == [0, 3]


def test_windows_line_ends_blank_lines_and_a_missing_last_line_end_change_nothing(read):
    images = read('\r\n' + GOOD.replace('\n', '\r\n') + '\r\n   \r\nb.jpg,1,0 0 5 5')
    assert list(images.names) == ['a/1.jpg', 'b.jpg']
    assert images.boxes[1].tolist() == [[0, 0, 5, 5]]


def test_boxes_that_stick_out_of_the_image_are_kept_as_they_are(read):
    images = read('a.jpg,0,-10 -2 99999 5\n')
    assert images.boxes[0].tolist() == [[-10, -2, 99999, 5]]


def test_spaces_in_a_name_belong_to_it(read):
    assert list(read('a b/c d.jpg,0\n').names) == ['a b/c d.jpg']


def test_dots_within_a_name_are_no_way_out(read):
    assert list(read('a..b/..c.jpg,0\n').names) == ['a..b/..c.jpg']


def test_images_that_would_share_a_mask_are_refused(read, tmp_path):
    assert 'lines 1 and 3: a/1.png and a/1.jpg would share a mask' in complaint(
        read, GOOD + '\na/1.png,0,10 20 30 40\n')
    (tmp_path / 'train.txt').write_text('a/1.JPEG 0\nb/1.JPEG 1\na/1.jpg 0\n')
    with pytest.raises(InputError, match='lines 1 and 3'):
        read_imagenet_list(tmp_path / 'train.txt', 5)
    assert len(read('a.b/1.jpg,0\na/1.jpg,0\nb/1.jpg,0\n')) == 3


def test_lines_of_one_image_are_one_image_with_several_boxes(read, capsys):
    """In the order of first lines, however far apart they are."""
    images = read('b.jpg,1,0 0 5 5\na.jpg,0,1 1 2 2\n./b.jpg,1,6 6 9 9\nc.jpg,1,0 0 1 1\n'
                  'b.jpg,1,2 2 3 3\n')
    assert list(images.names) == ['b.jpg', 'a.jpg', 'c.jpg']
    assert images.labels.tolist() == [1, 0, 1]
    assert [boxes.tolist() for boxes in images.boxes] == [
        [[0, 0, 5, 5], [6, 6, 9, 9], [2, 2, 3, 3]], [[1, 1, 2, 2]], [[0, 0, 1, 1]]]
    assert '5 lines are of 3 images' in capsys.readouterr().err
    assert len(read('a.jpg,0\n' * 2)) == 1
    assert read('a.jpg,0\n' * 2).boxes is None


def test_boxes_may_be_further_fields_of_a_line(read):
    images = read('a.jpg,0,1 1 2 2,3 3 4 4\nb.jpg,0,0 0 5 5\n')
    assert [boxes.tolist() for boxes in images.boxes] == [
        [[1, 1, 2, 2], [3, 3, 4, 4]], [[0, 0, 5, 5]]]


def test_equal_lines_of_an_imagenet_list_are_one_image(tmp_path):
    (tmp_path / 'val.txt').write_text('b.JPEG 1\na.JPEG 0\nb.JPEG 1\n')
    images = read_imagenet_list(tmp_path / 'val.txt', 5)
    assert list(images.names) == ['b.JPEG', 'a.JPEG']
    assert images.labels.tolist() == [1, 0]


def test_an_image_under_two_labels_is_refused_with_both_lines(read, tmp_path):
    assert 'lines 1 and 2: a/1.jpg has the labels 0 and 1' in complaint(
        read, GOOD + GOOD.replace(',0,', ',1,'))
    (tmp_path / 'train.txt').write_text('a/1.JPEG 0\nb/1.JPEG 1\na/1.JPEG 2\n')
    with pytest.raises(InputError, match='lines 1 and 3: a/1.JPEG has the labels 0 and 2'):
        read_imagenet_list(tmp_path / 'train.txt', 5)


@pytest.mark.parametrize('line', ['a b.jpg ,1, 1 2 3 4 ', 'a b.jpg, 1 ,1  2 3\t4',
                                  './a b.jpg,1,1 2 3 4'])
def test_spaces_round_the_fields_of_a_line_are_no_part_of_them(read, line):
    images = read(line)
    assert list(images.names) == ['a b.jpg']
    assert images.labels.tolist() == [1]
    assert images.boxes[0].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize('between', ['  ', '\t', ' \t '])
def test_spaces_and_tabs_separate_name_and_label_of_an_imagenet_list(tmp_path, between):
    (tmp_path / 'val.txt').write_text(f'my bird.JPEG{between}3\n')
    images = read_imagenet_list(tmp_path / 'val.txt', 5)
    assert (list(images.names), images.labels.tolist()) == (['my bird.JPEG'], [3])


KAGGLE = 'ImageId,PredictionString\nILSVRC2012_val_00048981,n03995372 85 1 499 272\n'


@pytest.mark.parametrize(('content', 'advice'), [
    ('a/b.jpg 0', 'separate name, label and boxes by commas'),
    ('a/b.jpg\t0\t1 2 3 4', 'separate name, label and boxes by commas'),
    ('a\\b.jpg,0', 'backslashes: write / instead'),
    ('a.jpg,5', 'if the labels count from 1, subtract 1'),
    ('a.jpg,0,1,2,3,4', 'four numbers with spaces between'),
    (KAGGLE, 'prepare_imagenet.py'),
    (KAGGLE.splitlines()[1], 'prepare_imagenet.py'),
    ('a.jpg,0'.encode('utf-16'), 'save it as UTF-8'),
])
def test_a_list_of_another_kind_is_told_what_to_do(read, content, advice):
    assert advice in complaint(read, content)


@pytest.mark.parametrize(('content', 'advice'), [
    ('a/b.JPEG,0', 'replace the comma by a space'),
    ('a/b.JPEG, 0', 'replace the comma by a space'),
    ('a/b.JPEG,0,1 2 3 4', 'replace the comma by a space'),
    ('a/b.JPEG', 'expected `name label`'),
    ('a\\b.JPEG 0', 'backslashes: write / instead'),
    ('a.JPEG 5', 'if the labels count from 1, subtract 1'),
    (KAGGLE, 'prepare_imagenet.py'),
    (KAGGLE.splitlines()[1], 'prepare_imagenet.py'),
])
def test_an_imagenet_list_of_another_kind_is_told_what_to_do(tmp_path, content, advice):
    (tmp_path / 'val.txt').write_text(content)
    assert advice in complaint(read_imagenet_list, tmp_path / 'val.txt', 5)


def test_a_missing_list_is_named(tmp_path):
    path = tmp_path / 'absent.txt'
    assert str(path) in complaint(read_cub_list, path, 5)


def test_a_folder_is_no_list(tmp_path):
    assert str(tmp_path) in complaint(read_cub_list, tmp_path, 5)


@pytest.mark.parametrize('content', ['', '\n', ' \r\n\t\n'])
def test_a_list_without_lines_is_empty(read, content):
    assert 'list.txt is empty' in complaint(read, content)


BAD_LINES = {
    'one field': 'a.jpg',
    'second box of one': 'a.jpg,0,1 2 3 4,5',
    'no name': ',0,1 2 3 4',
    'label is the number of classes': 'a.jpg,5,1 2 3 4',
    'label negative': 'a.jpg,-1,1 2 3 4',
    'label empty': 'a.jpg,,1 2 3 4',
    'label a word': 'a.jpg,bird,1 2 3 4',
    'label a fraction': 'a.jpg,1.0,1 2 3 4',
    'label superscript': 'a.jpg,²,1 2 3 4',
    'label in Arabic digits': 'a.jpg,٣,1 2 3 4',
    'label with underscore': 'a.jpg,0_1,1 2 3 4',
    'label of 4,000 digits': f'a.jpg,{"9" * 4000},1 2 3 4',
    'box of three': 'a.jpg,0,1 2 3',
    'box of five': 'a.jpg,0,1 2 3 4 5',
    'box empty': 'a.jpg,0,',
    'box of words': 'a.jpg,0,1 2 3 four',
    'box NaN': 'a.jpg,0,1 2 nan 4',
    'box infinite': 'a.jpg,0,1 2 inf 4',
    'box overflows': 'a.jpg,0,1 2 1e400 4',
    'box without width': 'a.jpg,0,3 2 3 4',
    'box without height': 'a.jpg,0,1 4 3 4',
    'box of negative width': 'a.jpg,0,3 2 1 4',
    'box of negative sides': 'a.jpg,0,3 4 1 2',
    'name climbs': '../a.jpg,0,1 2 3 4',
    'name climbs in the middle': 'a/../../b.jpg,0,1 2 3 4',
    'name is the parent': '..,0,1 2 3 4',
    'name absolute': '/etc/passwd,0,1 2 3 4',
    'name with backslash': 'a\\b.jpg,0,1 2 3 4',
    'name with NUL': 'a\0b.jpg,0,1 2 3 4',
    'line too long': 'a' * MAX_LINE_LENGTH + '.jpg,0,1 2 3 4',
}


@pytest.mark.parametrize('line', BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_refused_with_its_file_and_number(read, line):
    """Blank lines count: the bad one is the third."""
    assert 'list.txt, line 3: ' in complaint(read, f'{GOOD}\n{line}\n{GOOD}')


@pytest.mark.parametrize('lines', [('a.jpg,0,1 2 3 4', 'b.jpg,0'), ('b.jpg,0', 'a.jpg,0,1 2 3 4')])
def test_boxes_are_for_all_lines_or_for_none(read, lines):
    message = complaint(read, '\n'.join(lines))
    assert 'list.txt, line 2: ' in message
    assert 'box' in message


def test_a_line_just_short_enough_is_read(read):
    name = 'a' * (MAX_LINE_LENGTH - len(',0\n'))
    assert list(read(f'{name},0\n').names) == [name]


def test_a_name_that_is_not_utf8_still_names_the_file(read):
    """Linux file names are bytes: Path(name) must lead to these."""
    name = read(b'a\xff\xfe.jpg,0\n').names[0]
    assert name.encode(errors='surrogateescape') == b'a\xff\xfe.jpg'


def test_bytes_that_are_no_text_are_refused_where_no_name_is(read):
    assert 'line 1' in complaint(read, b'a.jpg,\xff,1 2 3 4\n')
    assert 'line 1' in complaint(read, b'a.jpg,0,1 2 3 \xff\n')


parts = st.text('abcXYZ019_. -é鳥', min_size=1, max_size=6).filter(
    lambda part: part.strip() == part and part.strip('.'))
relative_names = st.lists(parts, min_size=1, max_size=3).map('/'.join)
coordinates = st.integers(-50, 5000)
valid_boxes = st.tuples(coordinates, coordinates, st.integers(1, 999), st.integers(1, 999)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
rows = st.lists(st.tuples(relative_names, st.integers(0, 199), valid_boxes), min_size=1, max_size=8,
                unique_by=lambda row: os.path.splitext(row[0])[0])  # images do not share a mask


@settings(deadline=None)
@given(rows, st.booleans(), st.sampled_from(['\n', '\r\n']))
def test_a_valid_list_is_read_as_it_was_written(read, rows, with_boxes, end):
    lines = [f'{name},{label}' + f',{" ".join(map(str, box))}' * with_boxes
             for name, label, box in rows]
    images = read(end.join(lines), classes=200)
    names, labels, boxes = zip(*rows, strict=True)
    assert list(images.names) == list(names)
    assert images.labels.tolist() == list(labels)
    if with_boxes:
        assert [tuple(box) for box, in images.boxes] == list(boxes)
    else:
        assert images.boxes is None


fragments = st.sampled_from([',', ' ', '\n', '\r', '0', '7', '-', '.', '..', '/', 'nan', '1e9',
                             'a.jpg', '\0', '\\', '²', '\ufeff', '\u2028', '1 2 3 4'])
contents = st.one_of(st.binary(max_size=200), st.text(max_size=100).map(
    lambda text: text.encode(errors='surrogatepass')),
    st.lists(fragments, max_size=30).map(lambda some: ''.join(some).encode()))


@settings(deadline=None, max_examples=200)
@given(contents)
def test_any_content_is_either_a_sound_list_or_an_input_error(read, content):
    try:
        images = read(content)
    except InputError:
        return
    assert len(images) == len(images.names) == len(list(images.names)) > 0
    assert ((images.labels >= 0) & (images.labels < 5)).all()
    assert images.boxes is None or all((box[:, 2:] > box[:, :2]).all() for box in images.boxes)
