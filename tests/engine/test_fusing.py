"""A network prepared for inference computes what it did, with batch norm fused away."""

import pytest
import torch
from conftest import LITE
from torch import nn

from network import CamNet, SegNet, build_classifier
from network.mffnet import Float32Conv1x1
from utils.engine.fusing import prefer_onednn, prepare_inference

BUILD = {
    'cam resnet50': lambda: CamNet(5, 'resnet50', pretrained='none'),
    'cam lite0': lambda: CamNet(5, LITE, pretrained='none'),
    'seg resnet50': lambda: SegNet('resnet50', pretrained='none'),
    'cls resnet50': lambda: build_classifier('resnet50', 5, 'none'),
    'cls lite0': lambda: build_classifier(LITE, 5, 'none'),
    'cls densenet': lambda: build_classifier('densenet161', 5, 'none'),
}


def stir(model):
    """Give batch norms statistics and scales that are not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize('name', BUILD)
@torch.inference_mode()
def test_the_fused_network_computes_the_same(name):
    torch.manual_seed(0)
    model = stir(BUILD[name]())
    images = torch.randn(2, 3, 96, 64)
    expected = model(images)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ready = prepare_inference(model)
    assert norms(ready) < norms(model)
    if 'densenet' not in name:  # whose norms come before the convolutions
        assert norms(ready) == 0
    assert (ready(images) - expected).abs().max() <= 1e-3 * expected.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('name', ['cam resnet50', 'cam lite0', 'cls densenet'])
@torch.inference_mode()
def test_onednn_computes_the_same(name):
    torch.manual_seed(0)
    model = stir(BUILD[name]())
    images = torch.randn(2, 3, 96, 64)
    expected = model(images)
    prefer_onednn(model)
    assert (model(images) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='no oneDNN in this PyTorch')
@torch.inference_mode()
def test_onednn_takes_the_1x1_convolutions_of_one_core():
    """Which PyTorch computes otherwise where a batch has fewer than 16 images."""
    conv = nn.Conv2d(64, 64, 1)
    images = torch.randn(4, 64, 32, 32).to(memory_format=torch.channels_last)
    prefer_onednn(conv)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        conv(images)
    torch.set_num_threads(before)
    assert 'aten::mkldnn_convolution' in {event.key for event in profile.key_averages()}


def test_low_precision_spares_fine_maps_and_products():
    ready = prepare_inference(CamNet(5, 'resnet50', pretrained='none'), torch.bfloat16)
    types = {name: module.weight.dtype for name, module in ready.named_modules()
             if isinstance(module, nn.Conv2d)}
    assert types.pop('backbone.conv1') == torch.float32
    for name, module in ready.named_modules():
        if isinstance(module, Float32Conv1x1):
            assert types.pop(name) == torch.float32
    assert set(types.values()) == {torch.bfloat16}
    seen = []
    ready.backbone.conv1.register_forward_hook(lambda m, x, out: seen.append(out.dtype))
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        ready(torch.randn(1, 3, 64, 64))
    assert seen == [torch.float32]


class Shortcut(nn.Module):
    """A convolution whose output goes to a batch norm, and past it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images):
        maps = self.conv(images)
        return self.norm(maps) + maps


class Standardised(nn.Conv2d):
    """Changes its weights before it uses them, as timm's StdConv2d."""

    def forward(self, images):
        return self._conv_forward(images, self.weight - 0.1, self.bias)


class Zero(nn.Module):
    """Its output is 0 whatever its layers do, as a CAM may be."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 1, 1)

    def forward(self, images):
        maps = self.first(images)
        return (self.second(self.norm(maps) + maps) * 0).relu()


class OneSize(nn.Module):
    """As vision transformers do, refuses images of another size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        assert images.shape[-1] == 224
        return self.conv(images)


@pytest.mark.parametrize('model', [
    Shortcut(), Zero(), nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4))])
def test_what_cannot_be_fused_stays(model):
    ready = prepare_inference(stir(model))
    assert norms(ready) == 1
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(ready(images), model(images))


def test_a_network_for_one_size_stays():
    assert isinstance(prepare_inference(OneSize()), OneSize)
