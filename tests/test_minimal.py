"""docs/minimal.py, the method in 150 lines, computes what the library computes, and trains."""

import importlib.util
import re
import sys

import cv2
import numpy as np
import pytest
import timm
import torch
from conftest import ROOT, TINY
from torch.testing import assert_close

from network.mffnet import CamNet
from utils.boxes import CentreCrop, largest_box
from utils.losses import distillation_loss, segmentation_loss
from utils.pseudo_mask import pseudo_mask, seg_target

FILE = ROOT / 'docs' / 'minimal.py'
CLASSES = 3
CROPS = {'CAM': 56, 'SEG': 64}


@pytest.fixture
def minimal():
    spec = importlib.util.spec_from_file_location('minimal', FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_backbone():
    return timm.create_model(TINY.removeprefix('timm/'), features_only=True, out_indices=(2, 3, 4))


def minimal_name(key):
    """A key of the library's state dict -> that of the same tensor in docs/minimal.py."""
    key = key.removeprefix('mca.').removeprefix('mff.').replace('backbone.model.', 'backbone.')
    return re.sub(r'^(squeeze|excite|project)\.(\d)', lambda m: f'{m[1]}.{int(m[2]) - 3}', key)


def test_is_short_and_stands_alone():
    text = FILE.read_text()
    assert len(text.splitlines()) <= 150
    assert max(map(len, text.splitlines())) <= 100
    imported = re.findall(r'^\s*(?:import|from) (\w+)', text, re.MULTILINE)
    assert set(imported) <= {'cv2', 'numpy', 'timm', 'torch', 'torchvision',
                             *sys.stdlib_module_names}


@torch.inference_mode()
def test_features_and_cams(minimal):
    torch.manual_seed(0)
    library = CamNet(CLASSES, TINY, pretrained='none')
    for _ in range(3):  # batch norm's statistics are no longer 0 and 1
        library(torch.rand(4, 3, 64, 96))
    library.eval()
    model = minimal.MFFNet(tiny_backbone(), CLASSES).eval()
    model.load_state_dict({minimal_name(key): x for key, x in library.state_dict().items()})
    images, labels = torch.rand(2, 3, 64, 96), torch.tensor([2, 0])
    normalised = (images - model.mean) / model.std
    features = []
    model.head.register_forward_pre_hook(lambda head, inputs: features.extend(inputs))
    assert_close(model(images)[1].relu(), library(normalised), rtol=1e-5, atol=1e-5)
    assert_close(features, list(library.features(normalised)), rtol=1e-5, atol=1e-5)
    cams = [cam.relu() for cam in minimal.predict(model, images[0], labels[0])]
    assert_close(cams, [cams[0] for cams in library.class_cams(normalised, labels)],
                 rtol=1e-5, atol=1e-5)


def test_losses_and_their_gradients(minimal, golden):
    torch.manual_seed(0)
    stored = golden('training')['pseudo_mask']
    masks = torch.from_numpy(stored[..., :2]).permute(0, 3, 1, 2)
    maps = [torch.randn(len(stored), CLASSES, 8, 8, requires_grad=True) for _ in range(2)]
    labels = torch.tensor([0, 2, 1, 1])
    logits = [x.relu().mean((2, 3)) for x in maps]
    seg_maps = [x[:, :1] for x in maps]
    target = [torch.from_numpy(x) for x in seg_target(stored)]
    for loss, expected in (
            (minimal.distillation_loss(maps, labels, None), distillation_loss(*logits, labels)),
            (minimal.segmentation_loss(seg_maps, None, masks),
             segmentation_loss(seg_maps[1], *target))):
        assert_close(loss, expected['total'], rtol=1e-5, atol=1e-5)
        assert_close(*[torch.autograd.grad(x, maps, retain_graph=True, allow_unused=True)[1]
                       for x in (loss, expected['total'])])
    deep_gradients = [torch.autograd.grad(x, maps[0])[0] for x in (
        minimal.distillation_loss(maps, labels, None), distillation_loss(*logits, labels)['total'])]
    assert_close(*deep_gradients)


def test_pseudo_masks_targets_and_boxes(minimal, golden):
    noise = np.random.default_rng(0).random((48, 48), np.float32)  # has contours of any area
    for cam in (noise, *(x for name, x in golden('pseudo_mask').items() if name.startswith('cam'))):
        stored = pseudo_mask(cam, (170, 215))[..., :2]
        difference = np.abs(minimal.pseudo_mask(cam, (170, 215)).astype(int) - stored)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-3
        np.testing.assert_array_equal(minimal.target(*cv2.split(stored)), seg_target(stored))
    for probability in golden('boxes')['probability'].astype(np.float32) / 255:
        for threshold in (0.2, 0.5, 0.8, 1):
            expected = largest_box(probability, threshold) or (0, 0, 0, 0)
            assert minimal.largest_box(probability, threshold) == expected


def test_centre_crops_and_their_boxes(minimal, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    (tmp_path / 'image').mkdir()
    cv2.imwrite(str(tmp_path / 'image' / 'a.png'), image)
    (tmp_path / 'val.txt').write_text('a.png,2,1 5 60 45\na.png,0,20 10 30 20')
    images, labels, boxes = minimal.load(tmp_path, 'val.txt', 64, 56)
    crop = CentreCrop(64, 56)
    np.testing.assert_allclose(images[1].permute(1, 2, 0), crop.view(image[..., ::-1]), atol=1e-6)
    assert labels.tolist() == [2, 0]
    expected = crop.to_crop(np.array([[1, 5, 60, 45], [20, 10, 30, 20]]), (50, 70))
    np.testing.assert_allclose(boxes, expected)


def test_trains_and_tests(minimal, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / 'image').mkdir()
    for name, count in ('train', 20), ('val', 3):
        for index in range(count):
            image = rng.integers(0, 256, (50, 70, 3), np.uint8)
            cv2.imwrite(str(tmp_path / 'image' / f'{name}{index}.png'), image)
        lines = [f'{name}{index}.png,{index % CLASSES},10 5 60 45' for index in range(count)]
        (tmp_path / f'{name}.txt').write_text('\n'.join(lines))
    changed, train = [], minimal.train

    def watched(model, *arguments):
        before = [p.clone() for p in model.parameters()]
        train(model, *arguments)
        changed.append([not p.equal(q) for p, q in zip(model.parameters(), before, strict=True)])

    monkeypatch.setattr(minimal, 'train', watched)
    monkeypatch.setattr(minimal, 'pretrained_backbone', tiny_backbone)
    for name, crop in CROPS.items():
        recipe = getattr(minimal, name)._replace(side=crop + 8, crop=crop, batch=10, epochs=1,
                                                 min_steps=0)
        monkeypatch.setattr(minimal, name, recipe)
    monkeypatch.chdir(tmp_path)
    minimal.main(tmp_path)
    assert len(changed) == 2
    assert all(np.mean(parameters) > 0.9 for parameters in changed)
    assert len(re.findall(r'\d+\.\d%', capsys.readouterr().out)) == 3
    assert cv2.imread('minimal.png').shape == (4 * 64, 3 * 64, 3)
