"""The ImageNet-1K layout: lists, wnids, and XML boxes from anywhere."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from network import InputError
from utils.data.imagenet import read_train_images, read_val_images
from utils.data.lists import read_imagenet_list, read_wnids, read_xml_boxes

OBJECT = ('<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>'
          '<ymax>{}</ymax></bndbox></object>')


def xml(*objects):
    return f'<annotation>{"".join(OBJECT.format(*o) for o in objects)}</annotation>'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'box').mkdir()
    (tmp_path / 'train.txt').write_text('n01440764/n01440764_18.JPEG 0\n'
                                        'n01443537/n01443537_2.JPEG 1\n')
    (tmp_path / 'val.txt').write_text('ILSVRC2012_val_00000001.JPEG 1\n'
                                      'ILSVRC2012_val_00033202.JPEG 0\n'
                                      'ILSVRC2012_val_00000002.JPEG 0\n')
    (tmp_path / 'box' / 'ILSVRC2012_val_00000001.xml').write_text(xml(
        ('n01443537', 1, 2, 30, 40), ('n01440764', 5, 5, 9, 9), ('n01443537', 6, 7, 8, 9)))
    (tmp_path / 'box' / 'ILSVRC2012_val_00000002.xml').write_text(xml(('n01443537', 1, 1, 2, 2)))
    return tmp_path


def test_val_list_with_the_boxes_of_the_images_class(folder):
    images = read_val_images(folder, 'val.txt', 1000, boxes=True)
    assert images.folder == folder / 'val'
    assert list(images.names) == ['ILSVRC2012_val_00000001.JPEG', 'ILSVRC2012_val_00000002.JPEG']
    assert images.labels.tolist() == [1, 0]
    assert images.boxes[0].tolist() == [[1, 2, 30, 40], [6, 7, 8, 9]]
    assert images.boxes[1].shape == (0, 4)


def test_train_list(folder):
    images = read_train_images(folder, 'train.txt', 1000)
    assert images.folder == folder / 'train'
    assert list(images.names) == ['n01440764/n01440764_18.JPEG', 'n01443537/n01443537_2.JPEG']
    assert images.boxes is None


def test_own_wnids(folder):
    (folder / 'wnids.txt').write_text('n01443537\nn01440764\n')
    boxes = read_val_images(folder, 'val.txt', 2, boxes=True).boxes
    assert boxes[1].tolist() == [[1, 1, 2, 2]]  # label 0 is n01443537 here


def test_without_a_box_folder_there_are_no_boxes(folder):
    for path in (folder / 'box').iterdir():
        path.unlink()
    (folder / 'box').rmdir()
    assert read_val_images(folder, 'val.txt', 1000, boxes=True).boxes is None


def test_wnids_are_the_thousand(folder):
    from utils.arguments import ROOT

    wnids = read_wnids(ROOT / 'dataset' / 'imagenet_wnids.txt')
    assert len(wnids) == len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
    assert wnids[0] == 'n01440764'


def test_an_image_without_xml_has_no_box(folder):
    images = read_val_images(folder, 'val.txt', 1000, boxes=True)
    (folder / 'box' / 'ILSVRC2012_val_00000001.xml').unlink()
    assert images.boxes[0].shape == (0, 4)


def test_the_wrong_label_is_left_out_of_localization_alone(folder):
    assert len(read_val_images(folder, 'val.txt', 1000)) == 3
    assert len(read_val_images(folder, 'val.txt', 1000, boxes=True)) == 2


@pytest.mark.parametrize('line', ['x.JPEG', 'x.JPEG -1', 'x.JPEG 1000', '../x.JPEG 3',
                                  '/x.JPEG 3', ' 3', 'x.JPEG 3.0', 'a/../../x.JPEG 3'])
def test_malformed_lines_are_named(tmp_path, line):
    (tmp_path / 'val.txt').write_text(f'y.JPEG 0\n{line}\n')
    with pytest.raises(InputError, match=r'val\.txt, line 2'):
        read_imagenet_list(tmp_path / 'val.txt', 1000)


def test_names_may_hold_spaces(tmp_path):
    (tmp_path / 'val.txt').write_text('my bird.JPEG 7\n')
    assert list(read_imagenet_list(tmp_path / 'val.txt', 10).names) == ['my bird.JPEG']


def test_white_space_round_a_class_name_is_no_part_of_it(tmp_path):
    """As pretty-printed XML has it; preparation strips it as well."""
    (tmp_path / 'a.xml').write_text(xml(('\n\t n1 \n', 1, 2, 3, 4), ('n2', 1, 2, 3, 4)))
    assert read_xml_boxes(tmp_path / 'a.xml', 'n1').tolist() == [[1, 2, 3, 4]]


BILLION_LAUGHS = ('<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;&x;&x;">'
                  ']><annotation>&y;</annotation>')
EXTERNAL = ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            '<annotation><object><name>&x;</name></object></annotation>')


@pytest.mark.parametrize('text', [
    '', 'no xml', '<annotation>', BILLION_LAUGHS, EXTERNAL,
    xml(('n1', 5, 5, 5, 9)), xml(('n1', 'a', 5, 6, 9)), xml(('n1', 'nan', 5, 6, 9)),
    '<annotation><object><name>n1</name></object></annotation>'])
def test_bad_xml_is_refused(tmp_path, text):
    (tmp_path / 'a.xml').write_text(text)
    with pytest.raises(InputError, match=r'a\.xml'):
        read_xml_boxes(tmp_path / 'a.xml', 'n1')


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp('xml') / 'a.xml'
    path.write_text(f'<annotation>{text}</annotation>', errors='replace')
    with contextlib.suppress(InputError):
        assert read_xml_boxes(path, 'n1').shape == (0, 4)


@given(st.lists(st.tuples(st.sampled_from(['n1', 'n2']), st.integers(0, 99), st.integers(0, 99),
                          st.integers(100, 199), st.integers(100, 199)), max_size=5))
def test_boxes_of_the_class_in_order(tmp_path_factory, objects):
    path = tmp_path_factory.mktemp('xml') / 'a.xml'
    path.write_text(xml(*objects))
    expected = np.array([o[1:] for o in objects if o[0] == 'n1'], float).reshape(-1, 4)
    np.testing.assert_array_equal(read_xml_boxes(path, 'n1'), expected)
