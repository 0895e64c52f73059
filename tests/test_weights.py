"""Weights and checkpoints: which files are read, which are refused, and with what words."""

import os
import pickle
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
from conftest import complaint
from torchvision.models import resnet50

from network import CamNet, InputError, SegNet, build_classifier, load_checkpoint, weights
from network.backbone import build_backbone
from network.weights import read_state, released_name


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.fixture(scope='module')
def seg_net():
    return SegNet(pretrained='none')


def equal(model, state, names=str):
    return all(torch.equal(value, state[names(key)]) for key, value in model.state_dict().items())


# ---------------------------------------------------------------- checkpoints that fit


def test_every_name_has_its_released_counterpart(released_state):
    for kind, model in {'cam': CamNet(200, pretrained='none'),
                        'seg': SegNet(pretrained='none')}.items():
        shapes = {key: value.shape for key, value in released_state(kind).items()}
        assert {released_name(key): value.shape
                for key, value in model.state_dict().items()} == shapes


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_the_authors_checkpoints(seg_net, released_state, tmp_path, prefix, zipped):
    """PyTorch before 0.4.1 did not save the counters of batch norm."""
    state = released_state('seg')
    for counted in (True, False):
        torch.save({prefix + key: value for key, value in state.items()
                    if counted or not key.endswith('num_batches_tracked')}, tmp_path / 'model-8',
                   _use_new_zipfile_serialization=zipped)
        load_checkpoint(seg_net, tmp_path / 'model-8')
        assert equal(seg_net, state, released_name)


def test_our_checkpoints_and_those_in_half_precision(seg_net, tmp_path):
    other = SegNet(pretrained='none').state_dict()
    torch.save(other, tmp_path / 'model-1')
    load_checkpoint(seg_net, tmp_path / 'model-1')
    assert equal(seg_net, other)
    torch.save({key: value.half() if value.is_floating_point() else value
                for key, value in other.items()}, tmp_path / 'model-1')
    load_checkpoint(seg_net, tmp_path / 'model-1')
    assert seg_net.head.weight.dtype == torch.float32
    torch.testing.assert_close(seg_net.head.weight, other['head.weight'], rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- checkpoints that do not


def test_a_checkpoint_of_another_network_is_refused_with_what_differs(seg_net, released_state,
                                                                      tmp_path):
    state = released_state('cam', classes=20)
    del state['bn51.weight']
    state['extra.weight'] = torch.zeros(1)
    torch.save(state, tmp_path / 'cam')
    message = complaint(load_checkpoint, seg_net, tmp_path / 'cam')
    for part in ('another stage, --backbone, --arch or --clsnum?',
                 'Missing key(s) in state_dict: "mca.squeeze.5.1.weight"',
                 'Unexpected key(s) in state_dict: "extra.weight"', 'size mismatch for head.weight',
                 'shape ([20, 128, 1, 1]) from checkpoint'):
        assert part in message
    torch.save(CamNet(5, 'timm/resnet18', pretrained='none').state_dict(), tmp_path / 'cam')
    assert len(complaint(load_checkpoint, seg_net, tmp_path / 'cam')) < 600


@pytest.mark.parametrize('wrap', [lambda m: m, lambda m: {'head.weight': m},
                                  lambda m: {'head.weight': torch.zeros(1), 'more': [m]}])
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_a_malicious_checkpoint_is_refused_and_does_nothing(tmp_path, wrap, zipped):
    victim = tmp_path / 'victim'
    torch.save(wrap(Malicious(victim)), tmp_path / 'evil', _use_new_zipfile_serialization=zipped)
    message = complaint(read_state, tmp_path / 'evil')
    assert 'it calls posix.system' in message
    assert 'weights_only' not in message
    assert not victim.exists()


@pytest.mark.parametrize('content', [
    b'\n<!DOCTYPE html><html>Sign in</html>', pickle.dumps(np.zeros(3)),
    b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 98\n'],
    ids=['html', 'pickle', 'lfs'])
def test_a_file_of_another_kind_is_refused_without_the_advice_to_execute_it(tmp_path, content):
    (tmp_path / 'model-1').write_bytes(content)
    message = complaint(read_state, tmp_path / 'model-1')
    assert message.startswith(f'{tmp_path / "model-1"} cannot be read as weights')
    assert 'weights_only' not in message


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused(tmp_path, dtype, value):
    """A network of NaN would overwrite good pseudo masks by empty ones."""
    torch.save({'a': torch.ones(2), 'bn.running_var': torch.tensor([1, value], dtype=dtype)},
               tmp_path / 'model')
    assert 'bn.running_var has values that are not finite' in complaint(read_state,
                                                                        tmp_path / 'model')


# ---------------------------------------------------------------- pretrained weights


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """resource/ and torch's cache are empty folders, and nothing answers."""
    monkeypatch.setattr(weights, 'RESOURCE', tmp_path / 'resource')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(weights, 'TORCHVISION_URL', 'http://127.0.0.1:9/')
    return tmp_path


def test_no_weights_is_one_clear_error_never_a_random_start(no_network):
    message = complaint(build_backbone, 'resnet50')
    for part in ('resnet50-19c8e357.pth', str(no_network / 'resource'), '--pretrained none'):
        assert part in message


def test_a_download_comes_with_its_checksum_and_is_loaded_safely(no_network, monkeypatch):
    reference = resnet50().state_dict()

    def download(url, folder, map_location, check_hash, weights_only):
        assert (check_hash, weights_only) == (True, True)
        folder.mkdir()
        torch.save(reference, folder / url.rpartition('/')[2])

    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', download)
    backbone = build_backbone('resnet50')
    assert torch.equal(backbone.layer4[2].conv3.weight, reference['layer4.2.conv3.weight'])
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', Mock(side_effect=RuntimeError(
        'invalid hash value')))
    (no_network / 'resource' / 'resnet50-19c8e357.pth').unlink()
    assert 'invalid hash value' in complaint(build_backbone, 'resnet50')


def test_timm_weights_from_a_file_whatever_its_head(tmp_path):
    reference = timm.create_model('resnet18', num_classes=7)
    torch.save(reference.state_dict(), tmp_path / 'resnet18.pth')
    backbone = build_backbone('timm/resnet18', str(tmp_path / 'resnet18.pth'))
    assert torch.equal(backbone.model.layer4[1].conv2.weight, reference.layer4[1].conv2.weight)
    with pytest.raises(InputError, match='timm cannot build timm.resnet18'):
        build_classifier('timm/resnet18', 1000, str(tmp_path / 'resnet18.pth'), keep_head=True)
