"""The authors' arithmetic, number for number (tests/golden: computed with their code)."""

import numpy as np
import pytest
import torch

from network import CamNet, SegNet, load_checkpoint
from utils.boxes import CentreCrop, iou, largest_box
from utils.images import resize_nearest
from utils.losses import classification_loss, distillation_loss, segmentation_loss
from utils.metrics import MaxBoxAcc, PxAP
from utils.pseudo_mask import pseudo_mask, seg_target

STEP_TOLERANCES = (1e-5, 1e-4, 2e-4)


@pytest.fixture(scope='module')
def released_file(released_state, tmp_path_factory):
    folder = tmp_path_factory.mktemp('released')
    torch.save(released_state('cam', classes=20), folder / 'cam')
    torch.save(released_state('seg'), folder / 'seg')
    return lambda kind: folder / kind


def load(model, file):
    load_checkpoint(model, file)
    return model


def assert_close(actual, expected):
    assert np.abs(np.asarray(actual) - expected).max() <= 1e-5 * np.abs(expected).max()


@torch.inference_mode()
def test_backbone_and_cam_forward(golden, released_file):
    arrays = golden('forward')
    model = load(CamNet(20, pretrained='none'), released_file('cam')).eval()
    images = torch.from_numpy(arrays['image'])
    for number, stage in enumerate(model.backbone(images), 2):
        assert_close(stage[:, :8], arrays[f'stage{number}'])
    assert_close(model(images), arrays['cam'])


@torch.inference_mode()
def test_seg_forward(golden, released_file):
    arrays = golden('forward')
    model = load(SegNet(pretrained='none'), released_file('seg')).eval()
    assert_close(model(torch.from_numpy(arrays['image'])), arrays['seg'])


def train_three_steps(model, groups, loss):
    """SGD with the paper's groups, dropout off; the three steps' losses."""
    model.train()
    model.dropout.eval()
    optimizer = torch.optim.SGD(groups, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-4)
    trajectory = []
    for _ in range(3):
        losses = loss(model)
        optimizer.zero_grad()
        losses['total'].backward()
        optimizer.step()
        trajectory.append({name: value.item() for name, value in losses.items()})
    return trajectory


def assert_trajectory(trajectory, expected):
    for actual, wanted, tolerance in zip(trajectory, expected, STEP_TOLERANCES, strict=True):
        assert np.abs(np.array(actual) - wanted).max() <= tolerance


def test_cub_cam_training(golden, released_file):
    arrays = golden('training')
    images, labels = torch.from_numpy(arrays['image']), torch.from_numpy(arrays['label'])
    model = load(CamNet(20, pretrained='none'), released_file('cam'))
    groups = [{'params': model.new_parameters()},
              {'params': model.backbone.parameters(), 'lr': 0.002}]
    steps = train_three_steps(model, groups, lambda m: distillation_loss(*m(images), labels))
    assert_trajectory([[s['deep'], s['fused'], s['total']] for s in steps],
                      arrays['cub_cam_losses'])


def test_imagenet_cam_training(golden, released_file):
    arrays = golden('training')
    images, labels = torch.from_numpy(arrays['image']), torch.from_numpy(arrays['label'])
    model = load(CamNet(20, auxiliary=False, pretrained='none'), released_file('cam'))
    stem = {id(p) for p in model.backbone.stem_parameters()}
    groups = [{'params': model.new_parameters()},
              {'params': [p for p in model.backbone.parameters() if id(p) not in stem],
               'lr': 0.002}]
    steps = train_three_steps(model, groups, lambda m: classification_loss(m(images), labels))
    assert_trajectory([s['total'] for s in steps], arrays['imagenet_cam_losses'])


def test_seg_training(golden, released_file):
    arrays = golden('training')
    images = torch.from_numpy(arrays['image'])
    targets = [seg_target(mask) for mask in arrays['pseudo_mask']]
    foreground, valid = (np.stack(part) for part in zip(*targets, strict=True))
    np.testing.assert_array_equal(foreground, arrays['seg_target'])
    np.testing.assert_array_equal(valid, arrays['seg_weight'])
    model = load(SegNet(pretrained='none'), released_file('seg'))
    target = torch.from_numpy(foreground), torch.from_numpy(valid)
    steps = train_three_steps(model, [{'params': model.parameters()}],
                              lambda m: segmentation_loss(m(images), *target))
    assert_trajectory([s['total'] for s in steps], arrays['seg_losses'])


@pytest.mark.parametrize('k', range(10))
def test_pseudo_masks(golden, k):
    arrays = golden('pseudo_mask')
    stored = pseudo_mask(arrays[f'cam{k}'], tuple(arrays['shape'][k]))
    difference = np.abs(stored[..., :2].astype(int) - arrays[f'fuse{k}'])
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3
    assert not stored[..., 2].any()


def test_seg_target(golden):
    arrays = golden('seg_target')
    foreground, valid = seg_target(resize_nearest(arrays['stored'], (256, 256)))
    np.testing.assert_array_equal(np.packbits(foreground, axis=-1), arrays['foreground'])
    np.testing.assert_array_equal(np.packbits(valid, axis=-1), arrays['weight'])


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_boxes(golden, dtype):
    arrays = golden('boxes')
    for levels, expected in zip(arrays['probability'], arrays['box'], strict=True):
        for threshold, box in zip(arrays['threshold'], expected, strict=True):
            found = largest_box((levels / 255).astype(dtype), float(threshold))
            assert (found or (-1, -1, -1, -1)) == tuple(box)


def test_iou(golden):
    arrays = golden('boxes')
    np.testing.assert_allclose(iou(arrays['a'], arrays['b']), arrays['iou'], atol=1e-9)


def test_boxes_through_centre_crop(golden):
    arrays = golden('metrics')
    found = [CentreCrop(256, 224).to_crop(box, (height, width)) for box, (width, height)
             in zip(arrays['crop_in'], arrays['crop_size'], strict=True)]
    np.testing.assert_allclose(found, arrays['crop_out'], atol=1e-3)  # NaN in the same places


@pytest.mark.parametrize(('name', 'multi_contour'), [('largest', False), ('v2', True)])
def test_max_box_acc(golden, name, multi_contour):
    arrays = golden('metrics')
    metric = MaxBoxAcc((0.3, 0.5, 0.7), multi_contour)
    for score_map, boxes, (width, height) in zip(arrays['score_map'], arrays['box'],
                                                 arrays['image_size'], strict=True):
        metric.accumulate(score_map / 1000, boxes[boxes[:, 0] >= 0], (height, width))
    np.testing.assert_array_equal(metric.hits, arrays[f'hits_{name}'])
    np.testing.assert_allclose(100 * metric.compute()[0], arrays[f'max_box_acc_{name}'],
                               atol=1e-9)


def test_pxap(golden):
    arrays = golden('metrics')
    metric = PxAP()
    for score_map, bits in zip(arrays['score_map'], arrays['mask'], strict=True):
        metric.accumulate(score_map / 1000, np.unpackbits(bits, axis=-1).astype(bool))
    assert 100 * metric.compute() == pytest.approx(arrays['pxap'], abs=1e-9)
