"""dataset/prepare_wsol.py: folders like the benchmark's become lists in the CUB layout."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import refused

from utils.images import read_true_mask, resize_nearest
from utils.lists import cub_images

SCRIPT = 'dataset/prepare_wsol.py'
IDS = {'train': ['train/a/1.jpg', 'train/b/2.jpg'], 'val': ['train/b/3.jpg'],
       'test': ['test/a/4.jpg', 'test/b/5.jpg']}
BOXES = {'train/b/3.jpg': ['3,5,20,40'], 'test/a/4.jpg': ['0,0,30,40', '1,2,33,44'],
         'test/b/5.jpg': ['7,8,9,10', '0,3,0,3']}  # the last is one pixel
OBJECT, OTHER, REGION = (np.zeros((50, 60), np.uint8) for _ in range(3))
OBJECT[5:10, 5:20], OTHER[30:40, 5:20], REGION[35:50, 10:60] = 255, 255, 255


def write(path: Path, content: list[str] | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        path.write_text('\n'.join(content) + '\n')
    else:
        cv2.imwrite(str(path), content)


@pytest.fixture
def metadata(tmp_path) -> Path:
    """The metadata of five images of 60 x 50 pixels with boxes."""
    for split, names in IDS.items():
        folder = tmp_path / 'metadata' / split
        write(folder / 'image_ids.txt', names)
        write(folder / 'class_labels.txt', [f'{name},{int("/b/" in name)}' for name in names])
        write(folder / 'localization.txt',
              [f'{name},{box}' for name in names for box in BOXES.get(name, ())] or ['x'])
        for name in names:
            write(tmp_path / 'images' / name, np.zeros((50, 60, 3), np.uint8))
    return tmp_path / 'metadata'


@pytest.fixture
def masks(metadata) -> Path:
    """The same with masks, as OpenImages has them."""
    for split in ('val', 'test'):
        lines = []
        for name in IDS[split]:
            stem, end = name[:-4], f'{name[:-4]}_ignore.png' if 'b' in name else ''
            for part, mask in (('m1', OBJECT), ('m2', OTHER), ('ignore', REGION)):
                write(metadata.parent / 'masks' / f'{stem}_{part}.png', mask)
            lines += [f'{name},{stem}_m1.png,{end}', f'{name},{stem}_m2.png,{end}']
        write(metadata / split / 'localization.txt', lines)
    return metadata.parent / 'masks'


@pytest.fixture
def prepare(run_script, metadata, tmp_path):
    return lambda *more: run_script(SCRIPT, metadata, '--images', tmp_path / 'images', '--out',
                                    tmp_path / 'out', *more)


def test_boxes(prepare, tmp_path):
    code, out, err = prepare()
    assert (code, err) == (0, '')
    assert out.split('\n')[:3] == ['2 train images', '1 val images', '2 test images']
    train, val, test = (cub_images(tmp_path / 'out', f'{split}.txt', 2) for split in IDS)
    assert [images.names.tolist() for images in (train, val, test)] == list(IDS.values())
    assert [images.labels.tolist() for images in (train, val, test)] == [[0, 1], [1], [0, 1]]
    assert (train.boxes, train.segmentation) == (None, None)
    assert [box.tolist() for box in val.boxes] == [[[3, 5, 20, 40]]]
    assert [box.tolist() for box in test.boxes] == [[[0, 0, 30, 40], [1, 2, 33, 44]],
                                                    [[7, 8, 9, 10], [0, 3, 1, 4]]]
    assert (tmp_path / 'out' / 'image').is_symlink()
    assert prepare()[0] == 2  # --out exists
    assert not list(tmp_path.glob('.*'))


def test_masks_and_ignored_regions(prepare, masks, tmp_path, run_script):
    """The judge takes what is made: maps of the union have PxAP 1, as ignored pixels do not
    count."""
    code, _, err = prepare('--masks', masks)
    assert (code, err) == (0, '')
    test = cub_images(tmp_path / 'out', 'test.txt', 2)
    assert test.boxes is None
    union = (OBJECT > 0) | (OTHER > 0)
    for index, region in enumerate((np.zeros_like(union), (REGION > 0) & ~union)):
        path = test.mask_path(test.segmentation, index)
        foreground, ignored = read_true_mask(path, (50, 60))
        assert np.array_equal(foreground, union)
        assert np.array_equal(ignored, region)
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert np.unique(stored).tolist() == ([0, 1, 255] if index else [0, 255])
        score_map = resize_nearest((union | region).view(np.uint8), (224, 224))
        write(tmp_path / 'maps' / f'{test.name(index)}.png', score_map)
    code, _, err = run_script('tools/evaluate_maps.py', tmp_path / 'maps', '--list',
                              tmp_path / 'out' / 'test.txt', '--jobs', 1, '--out', tmp_path)
    assert code == 0, err
    method, = json.loads((tmp_path / 'evaluation.json').read_text())['methods'].values()
    assert method['metrics'].keys() == {'pxap'}
    assert method['metrics']['pxap']['value'] == pytest.approx(1)


def test_an_ignored_region_alone_is_refused(prepare, masks):
    for part in ('m1', 'm2'):
        write(masks / 'test' / 'b' / f'5_{part}.png', np.zeros((50, 60), np.uint8))
    refused(prepare('--masks', masks), 'test/b/5.jpg has an ignored region, but no foreground')


@pytest.mark.parametrize(('file', 'content', 'words'), [
    ('metadata/test/localization.txt', ['test/a/4.jpg,1,2,3'], ['4.jpg', 'reshape']),
    ('metadata/test/localization.txt', ['test/a/4.jpg,1,2,3,9'],
     ['test/b/5.jpg: it is not in all']),
    ('metadata/test/localization.txt', [f'{name},90,9,99,99' for name in IDS['test']],
     ['outside its image', 'out/test.txt']),
    ('metadata/train/image_ids.txt', ['../../x.jpg'], ['does not stay']),
    ('metadata/test', None, ['metadata/test']), ('images/test', None, ['--images']),
])
def test_what_does_not_fit(prepare, tmp_path, file, content, words):
    path = tmp_path / file
    if content is None:
        path.rename(tmp_path / 'moved')
    else:
        write(path, content)
    refused(prepare(), *words)
    assert not (tmp_path / 'out').exists()
    assert not list(tmp_path.glob('.*'))
