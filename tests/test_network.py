"""MFF-Net, its backbones and the classifiers."""

import re

import pytest
import torch
from conftest import LITE, TINY
from torch import nn

from network import CamNet, InputError, SegNet, build_classifier
from network.backbone import build_backbone
from network.classifier import load_cls, parameter_groups
from network.mffnet import MCA, MFF, Float32Conv1x1, load_cam, load_seg, multiply


@pytest.fixture(scope='module')
def cam_net():
    return CamNet(5, LITE)


def images(count=2, height=64, width=96):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_cam_shapes(cam_net):
    cam = cam_net.eval()(images())
    assert cam.shape == (2, 5, 8, 12)
    assert (cam >= 0).all()
    assert (cam > 0).any()


def test_one_class_cams_are_the_same_as_all(cam_net):
    labels = torch.tensor([3, 1])
    with torch.inference_mode():
        deep, fused = cam_net.eval().class_cams(images(), labels)
        torch.testing.assert_close(fused, cam_net(images())[[0, 1], labels])
        assert deep.shape == fused.shape == (2, 8, 12)
        assert not torch.allclose(deep, fused)


def test_training_gives_two_logits_or_one(cam_net):
    deep, fused = cam_net.train()(images())
    assert deep.shape == fused.shape == (2, 5)
    cam_net.auxiliary = False
    assert cam_net(images()).shape == (2, 5)
    cam_net.auxiliary = True


def test_logit_is_the_spatial_mean_of_the_cam(cam_net):
    cam_net.train().dropout.eval()
    deep, fused = cam_net.features(images())
    logits = cam_net._logits(fused)
    torch.testing.assert_close(logits, cam_net.cam(fused).mean((2, 3)))
    assert not torch.allclose(logits, cam_net._logits(deep))


def test_each_branch_has_its_own_dropout():
    model = CamNet(5, LITE)
    model.train()
    features = torch.ones(2, 128, 4, 4)
    assert not torch.equal(model._logits(features), model._logits(features))


def test_seg_shape():
    assert SegNet(LITE).eval()(images()).shape == (2, 1, 8, 12)


def test_odd_sizes_fit_together(cam_net):
    assert cam_net.eval()(images(1, 75, 53)).shape == (1, 5, 10, 7)


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


def test_timm_backbone_is_asked_not_assumed():
    backbone = build_backbone('timm/resnet18', 'none')
    assert backbone.channels == (64, 128, 256, 512)
    assert build_backbone(LITE).mean == (0.5, 0.5, 0.5)
    assert build_backbone('timm/convnext_atto', 'none').channels == (40, 80, 160, 320)


def test_every_fused_stage_reaches_the_fused_map_but_only_the_deepest_the_deep_one():
    mff = MFF({'3': 4, '4': 6, '5': 8}).eval()
    for module in mff.project.values():
        nn.init.constant_(module[1].bias, 1.0)
    maps = {'3': torch.randn(1, 4, 8, 8, requires_grad=True),
            '4': torch.randn(1, 6, 4, 4, requires_grad=True),
            '5': torch.randn(1, 8, 2, 2, requires_grad=True)}
    deep, fused = mff(maps)
    assert deep.shape == fused.shape == (1, 128, 8, 8)
    deep.sum().backward(retain_graph=True)
    assert maps['3'].grad is None
    assert maps['4'].grad is None
    assert maps['5'].grad.abs().sum() > 0
    fused.sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps.values())


def test_attention_of_one_stage_hangs_on_the_others():
    mca = MCA({'3': 4, '4': 6, '5': 8}).eval()
    maps = {'3': torch.rand(1, 4, 8, 8), '4': torch.rand(1, 6, 4, 4), '5': torch.rand(1, 8, 2, 2)}
    scaled = mca(maps)['3']
    assert scaled.shape == maps['3'].shape
    gate = scaled / maps['3']
    torch.testing.assert_close(gate, gate[..., :1, :1].expand_as(gate))  # one number a channel
    other = mca({**maps, '5': 50 * maps['5']})['3']
    assert not torch.allclose(scaled, other)


def test_products_are_taken_in_float32():
    big = torch.full((1, 2), 300.0, dtype=torch.float16)
    assert multiply([big, big, big]).tolist() == [[2.7e7, 2.7e7]]  # half precision ends at 65,504


def test_what_reads_a_product_does_not_cast_it_back():
    head, big = Float32Conv1x1(4, 2), torch.full((1, 4, 1, 1), 2.7e7)
    with torch.autocast('cpu', torch.float16):
        assert torch.isfinite(head(big)).all()
        assert not torch.isfinite(nn.Conv2d(4, 2, 1)(big)).all()


def test_fused_map_is_float32_under_autocast(cam_net):
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        deep, fused = cam_net.eval().features(images())
        assert deep.dtype == torch.bfloat16
        assert fused.dtype == torch.float32
        assert cam_net(images()).dtype == torch.float32


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


def test_new_parameters_are_all_but_the_backbones(cam_net):
    new = {id(p) for p in cam_net.new_parameters()}
    for name, parameter in cam_net.named_parameters():
        assert (id(parameter) in new) != name.startswith('backbone.')


def test_stem_is_conv1_and_bn1():
    backbone = build_backbone('resnet50', 'none')
    stem = {id(p) for p in backbone.stem_parameters()}
    assert {n for n, p in backbone.named_parameters() if id(p) in stem} == {
        'conv1.weight', 'bn1.weight', 'bn1.bias'}
    timm_backbone = build_backbone(LITE)
    stem = {id(p) for p in timm_backbone.stem_parameters()}
    assert {n for n, p in timm_backbone.named_parameters() if id(p) in stem} == {
        'model.conv_stem.weight', 'model.bn1.weight', 'model.bn1.bias'}


@pytest.mark.parametrize(('name', 'reason'), [
    ('resnet18', 'unknown backbone'),
    ('timm/no_such_model', 'no model'),
    ('timm/levit_128', 'strides'),
    ('timm/vit_tiny_patch16_224', 'strides'),
])
def test_unfit_backbones_are_refused(name, reason):
    with pytest.raises(InputError, match=reason):
        build_backbone(name, 'none')


def test_hierarchical_transformers_are_backbones():
    """Swin returns N x H x W x C."""
    model = CamNet(3, 'timm/swin_tiny_patch4_window7_224', pretrained='none')
    maps = model.backbone(torch.randn(2, 3, 224, 224))
    assert [m.shape[1] for m in maps] == list(model.backbone.channels)
    assert [m.shape[2] for m in maps] == [56, 28, 14, 7]


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


@pytest.mark.parametrize('stages', ['5', '45', '2345'])
@pytest.mark.parametrize('fusion', ['multiply', 'add', 'concatenate'])
def test_stages_and_fusions_train_and_make_cams(stages, fusion):
    model = CamNet(3, LITE, pretrained='none', stages=stages, fusion=fusion, attention=False)
    images = torch.randn(2, 3, 64, 64)
    deep, fused = model(images)
    (deep.sum() + fused.sum()).backward()
    side = 64 // 2 ** int(stages[0])
    assert model.eval()(images).shape == (2, 3, side, side)
    if stages == '5':
        deep, fused = model.class_cams(images, torch.zeros(2, dtype=torch.long))
        assert torch.equal(deep, fused)


@pytest.mark.parametrize(('arch', 'head'), [
    ('efficientnet_b7', 'classifier.1'), ('densenet161', 'classifier'), ('resnet50', 'fc'),
    ('timm/resnet18', 'fc'),
])
def test_classifier_has_a_new_head_of_the_wanted_size(arch, head):
    with torch.device('meta'):
        model = build_classifier(arch, 7, 'none')
    assert model.head_name == head
    head, rest = parameter_groups(model, 0.05)
    assert [p.shape[0] for p in head['params']] == [7, 7]
    assert (head['lr'], rest['lr']) == (0.05, pytest.approx(0.005))
    assert len(head['params']) + len(rest['params']) == len(list(model.parameters()))


def test_efficientnet_b7_regularisation_is_the_papers():
    with torch.device('meta'):
        model = build_classifier('efficientnet_b7', 7, 'none')
    assert model.classifier[0].p == 0.5
    depths = [m.p for m in model.modules() if type(m).__name__ == 'StochasticDepth']
    assert 0.19 < max(depths) < 0.2  # rising linearly to 0.2 behind the last block


def test_pretrained_head_is_kept_on_request():
    model = build_classifier(LITE, 1000, keep_head=True)
    with pytest.raises(InputError, match='1000 classes'):
        build_classifier(LITE, 10, keep_head=True)
    assert model.get_submodule(model.head_name).out_features == 1000


def test_unknown_classifier_is_refused():
    with pytest.raises(InputError, match='unknown classifier'):
        build_classifier('alexnet', 10, 'none')
    with pytest.raises(InputError, match='is not one linear layer'):
        build_classifier('timm/levit_128s', 10, 'none')


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


def test_lite0_weights_are_real():
    """They came with the installation, so the stem is no random start, and statistics moved."""
    backbone = build_backbone(LITE)
    norm = backbone.model.bn1
    assert norm.running_mean.abs().max() > 0.1
    random = build_backbone(LITE, 'none').model.bn1
    assert not random.running_mean.any()


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
    for load, name in ((load_cam, 'seg'), (load_cam, 'cls'), (load_cls, 'cam')):
        with pytest.raises(InputError, match=f'{name} is not a checkpoint of'):
            load(tmp_path / name, TINY)
