"""MFF-Net, its backbones and the classifiers."""

import re

import pytest
import torch
from conftest import LITE, TINY
from torch import nn

from network import CamNet, InputError, SegNet, build_classifier
from network.backbone import build_backbone
from network.classifier import load_cls, parameter_groups
from network.mffnet import MFF, load_cam, load_seg


@pytest.fixture(scope='module')
def cam_net():
    return CamNet(5, LITE)


def images(count=2, height=64, width=96):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_one_class_cams_are_the_same_as_all(cam_net):
    labels = torch.tensor([3, 1])
    with torch.inference_mode():
        deep, fused = cam_net.eval().class_cams(images(), labels)
        torch.testing.assert_close(fused, cam_net(images())[[0, 1], labels])
        assert deep.shape == fused.shape == (2, 8, 12)
        assert not torch.allclose(deep, fused)


@pytest.mark.parametrize('name', ['resnet50', 'resnet101', 'resnet152'])
def test_resnets_have_torchvisions_keys_and_four_stages(name):
    import torchvision

    with torch.device('meta'):
        reference = getattr(torchvision.models, name)()
        backbone = build_backbone(name, 'none').eval()
        maps = backbone(torch.empty(1, 3, 64, 64))
    assert list(backbone.state_dict()) == [key for key in reference.state_dict()
                                           if not key.startswith('fc.')]
    assert [m.shape[1:] for m in maps] == [(256, 16, 16), (512, 8, 8), (1024, 4, 4), (2048, 2, 2)]


def test_new_layers_start_as_specified():
    torch.manual_seed(0)
    model = CamNet(200, 'resnet50', pretrained='none')
    for convolution in (model.mca.excite['5'], model.mff.project['5'][0], model.head):
        fan_in = convolution.in_channels
        assert convolution.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
        assert not convolution.bias.any()
    norm = model.mff.project['3'][1]
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()


@pytest.mark.parametrize(('name', 'reason'), [
    ('resnet18', 'unknown backbone'), ('timm/no_such_model', 'Unknown model'),
    ('timm/levit_128', 'strides'), ('timm/vit_tiny_patch16_224', 'strides')])
def test_unfit_backbones_are_refused(name, reason):
    with pytest.raises(InputError, match=reason):
        build_backbone(name, 'none')


@pytest.mark.parametrize(('fusion', 'deep', 'fused'), [
    ('multiply', [5], [30]), ('add', [5], [10]), ('concatenate', [0, 0, 5], [2, 3, 5])])
def test_the_fusions_that_the_paper_compares(fusion, deep, fused):
    """Three stages whose projections are 2, 3 and 5 everywhere."""
    mff = MFF({'3': 4, '4': 4, '5': 4}, fusion)
    for stage, value in zip('345', (2.0, 3.0, 5.0), strict=True):
        mff.project[stage] = nn.Sequential(nn.Conv2d(4, 128, 1))
        nn.init.zeros_(mff.project[stage][0].weight)
        nn.init.constant_(mff.project[stage][0].bias, value)
    maps = {stage: torch.zeros(1, 4, side, side) for stage, side in zip('345', (4, 2, 1),
                                                                        strict=True)}
    for found, expected in zip(mff(maps), (deep, fused), strict=True):
        assert found.shape == (1, 128 * len(expected), 4, 4)
        assert found[0, ::128, 0, 0].tolist() == expected


@pytest.mark.parametrize(('arch', 'head'), [
    ('efficientnet_b7', 'classifier.1'), ('densenet161', 'classifier'), ('resnet50', 'fc'),
    ('timm/resnet18', 'fc')])
def test_classifier_has_a_new_head_of_the_wanted_size(arch, head):
    with torch.device('meta'):
        model = build_classifier(arch, 7, 'none')
    assert model.head_name == head
    head, rest = parameter_groups(model, 0.05)
    assert [p.shape[0] for p in head['params']] == [7, 7]
    assert (head['lr'], rest['lr']) == (0.05, pytest.approx(0.005))
    assert len(head['params']) + len(rest['params']) == len(list(model.parameters()))


@pytest.mark.parametrize(('arch', 'keep_head', 'reason'), [
    ('alexnet', False, 'unknown classifier'), ('timm/levit_128s', False, 'is not one linear layer'),
    (LITE, True, '1000 classes')])
def test_unfit_classifiers_are_refused(arch, keep_head, reason):
    with pytest.raises(InputError, match=reason):
        build_classifier(arch, 10, 'none', keep_head)


def test_densenet_weights_under_their_old_names(tmp_path):
    from torchvision.models import densenet161

    reference = densenet161().state_dict()
    old = {re.sub(r'(denselayer\d+\.(norm|conv))(\d)', r'\1.\3', key): value
           for key, value in reference.items()}
    assert 'features.denseblock1.denselayer1.norm.1.weight' in old
    torch.save(old, tmp_path / 'densenet161.pth')
    model = build_classifier('densenet161', 1000, str(tmp_path / 'densenet161.pth'),
                             keep_head=True)
    assert all(torch.equal(value, reference[key])
               for key, value in model.state_dict().items())


@pytest.mark.parametrize('fusion', [{}, {'stages': '2345', 'fusion': 'concatenate',
                                         'attention': False}])
def test_checkpoints_build_their_networks(tmp_path, fusion):
    """The number of classes is the checkpoint's own."""
    for name, model in (('cam', CamNet(5, TINY, pretrained='none', **fusion)),
                        ('seg', SegNet(TINY, 'none')), ('cls', build_classifier(TINY, 6, 'none'))):
        torch.save(model.state_dict(), tmp_path / name)
    found = load_cam(tmp_path / 'cam', TINY, **fusion)
    assert (found.head.out_channels, found.stages) == (5, fusion.get('stages', '345'))
    assert load_seg(tmp_path / 'seg', TINY).head.out_channels == 1
    model = load_cls(tmp_path / 'cls', TINY)
    assert model.get_submodule(model.head_name).out_features == 6
    for load, name in ((load_cam, 'seg'), (load_cam, 'cls'), (load_seg, 'cam'), (load_cls, 'cam')):
        with pytest.raises(InputError, match=f'{name} is (not a checkpoint|of another network)'):
            load(tmp_path / name, TINY)
