"""tools/compare_cams.py: the CAMs of PyPI's grad-cam as folders of score maps."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import LITE, ROOT

from network.classifier import build_classifier
from utils.data.images import read_image
from utils.localization.boxes import CentreCrop

SIDE = 96
NAMES = ('a/1.png', 'b/2.png')
needs_package = pytest.mark.skipif(importlib.util.find_spec('pytorch_grad_cam') is None,
                                   reason='grad-cam is an optional requirement')


@pytest.fixture(scope='module')
def tool():
    import runpy

    return runpy.run_path(str(ROOT / 'tools' / 'compare_cams.py'))


@pytest.fixture
def data(tmp_path) -> Path:
    """Two photographs of two classes, and a classifier with a random head that saw crops of 96."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / 'image' / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'image' / name), rng.integers(0, 255, (40, 60, 3), np.uint8))
    (tmp_path / 'val.txt').write_text('a/1.png,0,5 5 30 30\nb/2.png,1,5 5 30 30\n')
    torch.manual_seed(0)
    (tmp_path / 'run').mkdir()
    model = build_classifier(LITE, 2)  # features of random weights hardly depend on the image
    model.classifier.weight.data.abs_()  # no CAM is negative everywhere
    torch.save(model.state_dict(), tmp_path / 'run' / 'model-1')
    (tmp_path / 'run' / 'results.json').write_text(json.dumps(
        {'training': {'arguments': {'arch': LITE, 'resize': 110, 'crop': SIDE}}}))
    return tmp_path


@pytest.fixture
def compare(data, run_script):
    return lambda *more: run_script('tools/compare_cams.py', '--cls', data / 'run' / 'model-1',
                                    '--datapath', data, '--out', data / 'cams', *more)


def expected_gradcam(data: Path, name: str, label: int) -> np.ndarray:
    """GradCAM in front of average pooling and a linear layer: the features weighted by the class's
    row of that layer, its negative part cut off, scaled to 0 ... 1."""
    model = build_classifier(LITE, 2, pretrained='none').eval()
    model.load_state_dict(torch.load(data / 'run' / 'model-1', weights_only=True))
    # What cub200-cls/test.py sees with --resize 96 --crop 0.
    image = CentreCrop(SIDE).view(read_image(data / 'image' / name))
    image = (image - np.float32(model.mean)) / np.float32(model.std)
    with torch.inference_mode():
        features = model.forward_features(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
        cam = torch.einsum('c,chw->hw', model.classifier.weight[label], features).relu().numpy()
    cam = cv2.resize((cam - cam.min()) / (cam.max() - cam.min()), (SIDE, SIDE))
    return cv2.resize(cam, (224, 224))


@needs_package
def test_maps_of_all_methods(data, compare, run_script):
    code, out, err = compare()
    assert code == 0, err
    methods = ['gradcam', 'gradcam++', 'xgradcam', 'eigencam', 'layercam', 'layercam-several']
    maps = {method: [np.load(data / 'cams' / method / f'{name}.npy') for name in NAMES]
            for method in methods}
    for found in maps.values():
        assert all(score_map.dtype == np.float32 for score_map in found)
        assert all(score_map.shape == (224, 224) for score_map in found)
        assert all(0 <= score_map.min() < score_map.max() <= 1 for score_map in found)
    for label, name in enumerate(NAMES):
        assert np.abs(maps['gradcam'][label] - expected_gradcam(data, name, label)).max() < 0.01
        assert np.abs(maps['gradcam'][label] - maps['xgradcam'][label]).max() < 0.01
    command = out.splitlines()[-1].split()
    assert command[:2] == ['python', 'tools/evaluate_maps.py']
    code, out, err = run_script(*command[1:], '--out', data / 'evaluation')
    assert code == 0, err
    assert all(f'| {method} |' in out for method in methods)


@needs_package
def test_existing_maps_are_kept(data, compare):
    assert compare('--methods', 'gradcam')[0] == 0
    first, second = (data / 'cams' / 'gradcam' / f'{name}.npy' for name in NAMES)
    content, stamp = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    assert compare('--methods', 'gradcam')[0] == 0
    assert (second.read_bytes(), first.stat().st_mtime_ns) == (content, stamp)
    code, _, err = compare('--resize', 64)
    assert (code, 'another checkpoint' in err) == (2, True)


@needs_package
def test_what_is_wrong(data, compare):
    (data / 'val.txt').write_text('a/1.png,2,5 5 30 30\n')
    code, _, err = compare()
    assert (code, 'has 2 classes' in err) == (2, True)
    (data / 'run' / 'results.json').unlink()
    code, _, err = compare('--arch', LITE)
    assert (code, 'give --resize' in err) == (2, True)


def test_the_missing_package(compare, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    code, _, err = compare()
    assert code == 2
    assert 'pip install --no-deps grad-cam' in err
    assert err.count('\n') == 1


@pytest.mark.parametrize(('arch', 'names'), [
    (LITE, ['blocks.2', 'blocks.4', 'bn2']), ('timm/resnet18', ['layer2', 'layer3', 'layer4']),
])
def test_layers(tool, arch, names):
    model = build_classifier(arch, 2, pretrained='none').eval()
    assert tool['feature_layers'](model, SIDE) == [model.get_submodule(name) for name in names]


@pytest.mark.parametrize('arch', ['timm/vit_tiny_patch16_224', 'timm/swin_tiny_patch4_window7_224'])
def test_transformers_have_no_layers(tool, arch):
    model = build_classifier(arch, 2, pretrained='none').eval()
    with pytest.raises(Exception, match='choose a convolutional network'):
        tool['feature_layers'](model, 224)
