"""Weights and checkpoints: which files are read, which are refused, and with what words."""

import gzip
import json
import os
import pickle
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import LITE
from torch import nn

from network import CamNet, InputError, SegNet, load_checkpoint, weights
from network.backbone import build_backbone
from network.weights import check_keys, load_pretrained, read_state, released_name


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.fixture(scope='module')
def seg_net():
    return SegNet(pretrained='none')


def equal(model, state, names=lambda key: key):
    return all(torch.equal(value, state[names(key)])
               for key, value in model.state_dict().items())


def test_every_name_has_its_released_counterpart(released_state):
    cam, seg = CamNet(200, pretrained='none'), SegNet(pretrained='none')
    for model, kind in ((cam, 'cam'), (seg, 'seg')):
        shapes = {key: value.shape for key, value in released_state(kind).items()}
        assert {released_name(key): value.shape
                for key, value in model.state_dict().items()} == shapes


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_the_authors_checkpoints(seg_net, released_state, tmp_path, prefix, zipped):
    state = released_state('seg')
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / 'model-8',
               _use_new_zipfile_serialization=zipped)
    load_checkpoint(seg_net, tmp_path / 'model-8')
    assert equal(seg_net, state, released_name)


def test_our_checkpoints(seg_net, tmp_path):
    other = SegNet(pretrained='none')
    torch.save(other.state_dict(), tmp_path / 'model-1')
    load_checkpoint(seg_net, tmp_path / 'model-1')
    assert equal(seg_net, other.state_dict())


def test_a_checkpoint_older_than_the_batch_counter(seg_net, released_state, tmp_path):
    state = {key: value for key, value in released_state('seg').items()
             if not key.endswith('num_batches_tracked')}
    torch.save(state, tmp_path / 'old')
    load_checkpoint(seg_net, tmp_path / 'old')
    assert torch.equal(seg_net.head.weight, state['linear.weight'])


def test_every_differing_key_is_named_as_in_the_file(seg_net, released_state, tmp_path):
    state = released_state('cam', classes=20)
    del state['bn51.weight']
    state['extra.weight'] = torch.zeros(1)
    torch.save(state, tmp_path / 'cam')
    with pytest.raises(InputError) as error:
        load_checkpoint(seg_net, tmp_path / 'cam')
    for part in ('1 missing: bn51.weight', '1 unexpected: extra.weight',
                 '2 misshaped: linear.weight (20, 128, 1, 1) instead of (1, 128, 1, 1), '
                 'linear.bias (20,) instead of (1,)'):
        assert part in str(error.value)


def test_a_refused_checkpoint_changes_nothing(seg_net, released_state, tmp_path):
    before = {key: value.clone() for key, value in seg_net.state_dict().items()}
    torch.save(released_state('cam', classes=20), tmp_path / 'cam')
    with pytest.raises(InputError):
        load_checkpoint(seg_net, tmp_path / 'cam')
    assert equal(seg_net, before)


@pytest.mark.parametrize('keep', [0, 10, 1000, 0.5, 0.999])
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_truncated_files_are_refused(tmp_path, keep, zipped):
    path = tmp_path / 'model'
    torch.save(nn.Linear(100, 100).state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[:keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(InputError, match='model'):
        read_state(path)


@pytest.mark.parametrize('wrap', [lambda m: m, lambda m: {'head.weight': m},
                                  lambda m: {'head.weight': torch.zeros(1), 'more': [m]}])
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_a_malicious_checkpoint_is_refused_and_does_nothing(tmp_path, wrap, zipped):
    victim = tmp_path / 'victim'
    torch.save(wrap(Malicious(victim)), tmp_path / 'evil',
               _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match='refused'):
        read_state(tmp_path / 'evil')
    assert not victim.exists()


@pytest.mark.parametrize('content', [{}, [], {'epoch': 3}, {'state': {'a': torch.zeros(1)}},
                                     torch.zeros(3)])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / 'file')
    with pytest.raises(InputError, match='state dict'):
        read_state(tmp_path / 'file')


@pytest.mark.parametrize(('content', 'kind'), [
    (b'\n<!DOCTYPE html><html>Sign in</html>', 'is a web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 98\n', 'git lfs pull'),
    (gzip.compress(b'weights'), 'gunzip'),
    (pickle.dumps(np.zeros(3)), 'refused'),
    (b'text', 'cannot be read as weights'),
], ids=['html', 'lfs', 'gzip', 'pickle', 'text'])
def test_a_file_of_another_kind_is_named_without_the_advice_to_execute_it(tmp_path, content, kind):
    (tmp_path / 'model-1').write_bytes(content)
    with pytest.raises(InputError, match=kind) as error:
        read_state(tmp_path / 'model-1')
    assert 'weights_only' not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / 'model-1'))


def test_a_refused_object_is_named(tmp_path):
    torch.save({'a': np.zeros(3)}, tmp_path / 'model')
    with pytest.raises(InputError, match='it calls numpy') as error:
        read_state(tmp_path / 'model')
    assert 'weights_only' not in str(error.value)


def test_lack_of_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    torch.save({'a': torch.zeros(3)}, tmp_path / 'model')
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        monkeypatch.setattr(torch, 'load', Mock(side_effect=error))
        with pytest.raises(InputError, match='does not fit into memory'):
            read_state(tmp_path / 'model')


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'module._orig_mod.', '_orig_mod.module.'])
def test_prefixes_of_compiled_networks_are_removed(tmp_path, prefix):
    torch.save({f'{prefix}head.weight': torch.ones(2)}, tmp_path / 'model')
    assert list(read_state(tmp_path / 'model')) == ['head.weight']


@pytest.mark.parametrize('wrap', [
    lambda state: {'state_dict': state, 'epoch': 3},
    lambda state: {'model': state, 'optimizer': {'state': {}}, 'step': 7, 'run': {'--lr': 0.1}}])
def test_a_state_dict_in_a_dictionary_is_taken(tmp_path, wrap):
    """As other programs save it, and last.ckpt has it."""
    torch.save(wrap({'head.weight': torch.ones(2)}), tmp_path / 'last.ckpt')
    assert list(read_state(tmp_path / 'last.ckpt')) == ['head.weight']


@pytest.mark.filterwarnings('ignore::UserWarning')  # PyTorch deprecates quantised tensors
@pytest.mark.parametrize('make', [
    lambda: torch.zeros(2, device='meta'), lambda: torch.eye(2).to_sparse(),
    lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)],
    ids=['meta', 'sparse', 'quantised'])
def test_a_tensor_without_plain_numbers_is_refused(tmp_path, make):
    torch.save({'head.weight': make()}, tmp_path / 'model')
    with pytest.raises(InputError, match='head.weight is a meta, quantised, sparse'):
        read_state(tmp_path / 'model')


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused(tmp_path, dtype, value):
    """A network of NaN would overwrite good pseudo masks by empty ones."""
    torch.save({'a': torch.ones(2), 'bn.running_var': torch.tensor([1, value], dtype=dtype)},
               tmp_path / 'model')
    with pytest.raises(InputError, match='bn.running_var has values that are not finite'):
        read_state(tmp_path / 'model')


def test_integers_in_place_of_weights_are_refused(seg_net, released_state, tmp_path):
    """Half precision is none of them."""
    state = {key: value.half() if value.is_floating_point() else value
             for key, value in released_state('seg').items()}
    torch.save(state, tmp_path / 'seg')
    load_checkpoint(seg_net, tmp_path / 'seg')
    torch.save({**state, 'linear.bias': state['linear.bias'].long()}, tmp_path / 'seg')
    with pytest.raises(InputError, match=r'1 of another type: linear.bias torch.int64'):
        load_checkpoint(seg_net, tmp_path / 'seg')


@pytest.mark.parametrize(('has', 'told'), [('resnet101', 'resnet101'),
                                           ('timm/resnet18', 'timm/NAME')])
def test_a_forgotten_backbone_is_named_with_three_keys_of_each_kind(seg_net, tmp_path, has, told):
    with torch.device('meta'):
        state = SegNet(has, pretrained='none').state_dict()
    with pytest.raises(InputError, match=f'another backbone: give --backbone {told}: ') as error:
        check_keys(tmp_path / 'model-8', state, seg_net.state_dict())
    assert len(str(error.value)) < 1000
    (tmp_path / 'results.json').write_text(json.dumps(
        {'training': {'arguments': {'backbone': has}}}))
    with pytest.raises(InputError, match=f'another backbone: give --backbone {has}: '):
        check_keys(tmp_path / 'model-8', state, seg_net.state_dict())


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match='no weights at .*nothing'):
        read_state(tmp_path / 'nothing')


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file({'weight': torch.arange(3.0)}, tmp_path / 'file.safetensors')
    assert read_state(tmp_path / 'file.safetensors')['weight'].tolist() == [0, 1, 2]
    (tmp_path / 'bad.safetensors').write_bytes(b'\xff' * 100)
    with pytest.raises(InputError, match='cannot be read'):
        read_state(tmp_path / 'bad.safetensors')


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """resource/ and torch's cache are empty folders, and nothing answers."""
    monkeypatch.setattr(weights, 'RESOURCE', tmp_path / 'resource')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(weights, 'TORCHVISION_URL', 'http://127.0.0.1:9/')
    return tmp_path


def test_no_weights_is_one_clear_error_never_a_random_start(no_network):
    with pytest.raises(InputError) as error:
        build_backbone('resnet50')
    message = str(error.value)
    assert 'resnet50-19c8e357.pth' in message
    assert str(no_network / 'resource') in message
    assert '--pretrained none' in message


def test_a_damaged_file_in_resource_is_named(no_network):
    (no_network / 'resource').mkdir()
    (no_network / 'resource' / 'resnet50-19c8e357.pth').write_bytes(b'not the weights')
    with pytest.raises(InputError, match=r'resnet50-19c8e357\.pth is corrupted'):
        build_backbone('resnet50')


@pytest.mark.parametrize('folder', ['resource', 'torch/hub/checkpoints'])
def test_weights_lying_ready_are_taken(no_network, monkeypatch, folder):
    from torchvision.models import resnet50

    path = no_network / folder / 'resnet50-19c8e357.pth'
    path.parent.mkdir(parents=True)
    reference = resnet50()
    torch.save({key: value for key, value in reference.state_dict().items()
                if not key.endswith('num_batches_tracked')}, path)  # as that file is
    monkeypatch.setattr(weights, 'has_checksum', lambda path, checksum:
                        checksum == 'sha256:19c8e357')
    backbone = build_backbone('resnet50')
    assert torch.equal(backbone.layer4[2].conv3.weight, reference.layer4[2].conv3.weight)


def test_none_leaves_the_model_as_it_is_and_a_file_is_that_file(tmp_path):
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    before = model.weight.clone()
    load_pretrained(model, 'resnet50', 'none')
    assert torch.equal(model.weight, before)
    torch.save(other.state_dict(), tmp_path / 'mine.pth')
    load_pretrained(model, 'resnet50', str(tmp_path / 'mine.pth'))
    assert torch.equal(model.weight, other.weight)


def test_a_file_of_another_backbone_is_refused(tmp_path):
    torch.save({'conv1.weight': torch.zeros(64, 3, 7, 7)}, tmp_path / 'other.pth')
    for name in ('resnet50', LITE):
        with pytest.raises(InputError, match='missing'):
            build_backbone(name, str(tmp_path / 'other.pth'))


def test_timm_weights_from_a_file(tmp_path):
    import timm

    reference = timm.create_model('resnet18')
    torch.save(reference.state_dict(), tmp_path / 'resnet18.pth')
    backbone = build_backbone('timm/resnet18', str(tmp_path / 'resnet18.pth'))
    assert torch.equal(backbone.model.layer4[1].conv2.weight, reference.layer4[1].conv2.weight)


def test_the_unused_head_of_a_timm_file_may_be_of_any_size(tmp_path):
    import timm

    from network import build_classifier

    reference = timm.create_model('resnet18', num_classes=7)
    torch.save(reference.state_dict(), tmp_path / 'resnet18.pth')
    backbone = build_backbone('timm/resnet18', str(tmp_path / 'resnet18.pth'))
    assert torch.equal(backbone.model.layer4[1].conv2.weight, reference.layer4[1].conv2.weight)
    with pytest.raises(InputError, match='2 misshaped: fc.weight'):
        build_classifier('timm/resnet18', 1000, str(tmp_path / 'resnet18.pth'), keep_head=True)
