"""tools/compare_cams.py: the CAMs of PyPI's grad-cam as folders of score maps."""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import LITE, VAL_NAMES, refused

from network.classifier import build_classifier
from tools.compare_cams import METHODS, feature_layers
from utils.boxes import CentreCrop
from utils.errors import InputError
from utils.images import read_image

SIDE = 96
needs_package = pytest.mark.skipif(importlib.util.find_spec('pytorch_grad_cam') is None,
                                   reason='grad-cam is an optional requirement')


@pytest.fixture
def folder(project) -> Path:
    """The tiny project with a classifier that has seen crops of 96, with a random head: features
    of random weights hardly depend on the image."""
    torch.manual_seed(0)
    model = build_classifier(LITE, 2)
    model.classifier.weight.data.abs_()  # no CAM is negative everywhere
    torch.save(model.state_dict(), project / 'model-1')
    (project / 'model-1.json').write_text(json.dumps({'arch': LITE, 'resize': 110, 'crop': SIDE}))
    return project


@pytest.fixture
def compare(folder, run_script):
    return lambda *more: run_script('tools/compare_cams.py', '--cls', folder / 'model-1',
                                    '--datapath', folder / 'data', '--out', folder / 'cams', *more)


def expected_gradcam(folder: Path, name: str, label: int) -> np.ndarray:
    """GradCAM in front of average pooling and a linear layer: the features weighted by the class's
    row of that layer, its negative part cut off, scaled to 0 ... 1."""
    model = build_classifier(LITE, 2, pretrained='none').eval()
    model.load_state_dict(torch.load(folder / 'model-1', weights_only=True))
    image = CentreCrop(SIDE).view(read_image(folder / 'data' / 'image' / name))
    image = (image - np.float32(model.mean)) / np.float32(model.std)
    with torch.inference_mode():
        features = model.forward_features(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
        cam = torch.einsum('c,chw->hw', model.classifier.weight[label], features).relu().numpy()
    cam = cv2.resize((cam - cam.min()) / (cam.max() - cam.min()), (SIDE, SIDE))
    return cv2.resize(cam, (224, 224))


@needs_package
def test_maps_of_all_methods(folder, compare, run_script):
    code, out, err = compare()
    assert code == 0, err
    maps = {method: [np.load(folder / 'cams' / method / f'{name}.npy') for name in VAL_NAMES]
            for method in METHODS}
    for found in maps.values():
        assert {(score_map.shape, score_map.dtype.name) for score_map in found} == {
            ((224, 224), 'float32')}
        assert all(0 <= score_map.min() < score_map.max() <= 1 for score_map in found)
    for number, name in enumerate(VAL_NAMES):
        found = maps['gradcam'][number]
        assert np.abs(found - expected_gradcam(folder, name, number % 2)).max() < 0.01
        assert np.abs(found - maps['xgradcam'][number]).max() < 0.01
    command = out.splitlines()[-1].split()
    assert command[:2] == ['python', 'tools/evaluate_maps.py']
    code, out, err = run_script(*command[1:], '--out', folder / 'evaluation', '--jobs', 1)
    assert code == 0, err
    assert all(f'| {method} |' in out for method in METHODS)


@needs_package
def test_what_does_not_fit_is_refused(folder, compare):
    path = folder / 'data' / 'val.txt'
    path.write_text(path.read_text().replace(',1,', ',2,'))
    refused(compare(), 'is not in 0 ... 1')
    (folder / 'model-1.json').unlink()
    refused(compare(), 'model-1.json')


def test_the_missing_package(compare, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    refused(compare(), 'pip install --no-deps grad-cam')


@pytest.mark.parametrize(('arch', 'names'), [
    (LITE, ['blocks.2', 'blocks.4', 'bn2']), ('timm/resnet18', ['layer2', 'layer3', 'layer4']),
])
def test_layers(arch, names):
    model = build_classifier(arch, 2, pretrained='none').eval()
    assert feature_layers(model, SIDE) == [model.get_submodule(name) for name in names]


@pytest.mark.parametrize('arch', ['timm/vit_tiny_patch16_224', 'timm/swin_tiny_patch4_window7_224'])
def test_transformers_have_no_layers(arch):
    model = build_classifier(arch, 2, pretrained='none').eval()
    with pytest.raises(InputError, match='choose a convolutional network'):
        feature_layers(model, 224)
