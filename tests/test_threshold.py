"""The threshold of the segmentation, chosen without boxes (seg/test.py --threshold auto)."""

import json

import numpy as np
from conftest import TRAIN_NAMES, refused, write_image

from utils.images import resize
from utils.metrics import normalise_map
from utils.threshold import THRESHOLDS, agreement


def test_the_agreement_is_the_iou_on_valid_pixels():
    rng = np.random.default_rng(0)
    probability, cam = rng.random((2, 30, 40))
    foreground, valid = cam > 0.6, (cam > 0.6) | (cam < 0.2)
    found = agreement(probability, foreground, valid)
    for number in (0, 40, 77, 110):
        mask = (probability > THRESHOLDS[number])[valid]
        truth = foreground[valid]
        assert found[number] == (mask & truth).sum() / (mask | truth).sum()
    assert not agreement(probability, np.zeros_like(foreground), valid).any()


def make_masks_of_maps(stage, project):
    """Pseudo masks whose CAM is the map that the untrained network finds, stretched to 0 ... 1."""
    assert stage('seg', 'test', '--list', 'train.txt', '--save_maps')[0] == 0
    for name in TRAIN_NAMES:
        found = normalise_map(np.load(project / 'cub200-seg' / 'out' / 'maps' / f'{name}.npy'))
        stored = np.zeros((50, 60, 3), np.uint8)
        stored[..., 0] = resize((255 * found).astype(np.uint8), (50, 60))
        write_image((project / 'data' / 'mask' / name).with_suffix('.png'), stored)


def test_the_chosen_threshold_is_recorded_and_used_by_the_next_test(stage, project):
    recorded = project / 'cub200-seg' / 'out' / 'model-1.json'
    before = json.loads(recorded.read_text())
    make_masks_of_maps(stage, project)
    code, out, err = stage('seg', 'test', '--threshold', 'auto')
    assert code == 0, err
    after = json.loads(recorded.read_text())
    threshold = after.pop('threshold')
    assert 'no boxes' in after.pop('threshold_rule')
    assert after == before
    assert threshold in THRESHOLDS
    assert f'threshold {threshold} (' in out

    def results():
        found = json.loads((recorded.parent / 'results.json').read_text())
        return found['arguments']['threshold'], found['strict'], found.get('paper_threshold')

    first = results()
    assert first[0] == threshold
    assert first[2]['threshold'] == 0.2
    code, out, err = stage('seg', 'test')
    assert code == 0, err
    assert f'trained with --backbone timm/test_efficientnet, --resize 40, --crop 32, --clsnum 2, ' \
        f'--threshold {threshold}' in out
    assert results() == first


def test_the_threshold_needs_the_pseudo_masks_of_the_training(stage, project):
    (project / 'data' / 'mask').rename(project / 'data' / 'elsewhere')
    result = stage('seg', 'test', '--threshold', 'auto')
    refused(result, project / 'data' / 'mask')
    assert '"threshold"' not in (project / 'cub200-seg' / 'out' / 'model-1.json').read_text()
