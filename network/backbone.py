"""Backbones: image -> the feature maps of the four stages at strides 4, 8, 16 and 32.

The paper's is ResNet-50; ResNet-101, ResNet-152 and every timm model that gives these
four strides (`timm/NAME`) work the same way. A backbone knows its stages' channels and the mean
and standard deviation that its weights expect of the input.
"""

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from network.errors import InputError
from network.timm_models import create_timm
from network.weights import load_pretrained

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDES = (4, 8, 16, 32)
RESNET_LAYERS = {
    'resnet50': (3, 4, 6, 3),
    'resnet101': (3, 4, 23, 3),
    'resnet152': (3, 8, 36, 3),
}


def build_backbone(name: str, pretrained: str = 'auto') -> nn.Module:
    """The backbone called `name` (`resnet50` | `resnet101` | `resnet152` | `timm/NAME`).

    It maps float images N x 3 x H x W, normalised by its `mean` and `std` (per RGB channel, of
    images in [0, 1]), to its four stages' maps, N x channels[i] x H/4.. W/4.. down to H/32, W/32.

    `pretrained` is `auto`, `none` or a file; see `network.weights.load_pretrained`.
    Raises InputError for an unknown name or weights that cannot be had.
    """
    if name in RESNET_LAYERS:
        backbone = ResNet(RESNET_LAYERS[name])
        load_pretrained(backbone, name, pretrained)
        return backbone
    if name.startswith('timm/'):
        return TimmBackbone(name, pretrained)
    raise InputError(f'unknown backbone {name!r}: use {", ".join(RESNET_LAYERS)} or timm/NAME')


class ResNet(TorchvisionResNet):
    """torchvision's ResNet (7x7/2 stem, bottlenecks with the stride on the 3x3) without its end."""

    channels = (256, 512, 1024, 2048)
    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, layers: tuple[int, ...]):
        super().__init__(Bottleneck, list(layers))
        del self.avgpool, self.fc

    def stem_parameters(self) -> list[nn.Parameter]:
        return [*self.conv1.parameters(), *self.bn1.parameters()]

    def forward(self, images: Tensor) -> list[Tensor]:
        stage1 = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        stage2 = self.layer1(stage1)
        stage3 = self.layer2(stage2)
        stage4 = self.layer3(stage3)
        stage5 = self.layer4(stage4)
        return [stage2, stage3, stage4, stage5]


class TimmBackbone(nn.Module):
    """Any timm model that gives feature maps at strides 4, 8, 16 and 32."""

    def __init__(self, name: str, pretrained: str):
        super().__init__()
        self.model = create_timm(name, pretrained, features_only=True)
        if str(getattr(self.model, 'output_fmt', 'NCHW')).rpartition('.')[2] != 'NCHW':
            raise InputError(f'backbone {name} puts channels last in its maps, which MFF-Net does '
                             'not read: choose another backbone')
        reductions = self.model.feature_info.reduction()
        if not set(STRIDES) <= set(reductions):
            raise InputError(
                f'backbone {name} has feature maps at strides {reductions}, '
                f'but MFF-Net needs {list(STRIDES)}: choose another backbone'
            )
        # Several maps may share a stride: the last of them is the stage's output.
        self.indices = [len(reductions) - 1 - reductions[::-1].index(s) for s in STRIDES]
        self.channels = tuple(self.model.feature_info.channels()[i] for i in self.indices)
        self.mean = tuple(self.model.pretrained_cfg['mean'])
        self.std = tuple(self.model.pretrained_cfg['std'])

    def stem_parameters(self) -> list[nn.Parameter]:
        stem = ('conv_stem', 'conv1', 'bn1', 'stem')
        return [p for name, p in self.model.named_parameters() if name.startswith(stem)]

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.model(images)
        return [features[i] for i in self.indices]
