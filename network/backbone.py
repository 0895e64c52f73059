"""Backbones: image -> the feature maps of the four stages at strides 4, 8, 16 and 32.

The paper's is ResNet-50. ResNet-101, ResNet-152 and timm models (`timm/NAME`) work the same way. A
backbone knows its stages' channels and the mean and standard deviation that its weights expect.
"""

from torch import Tensor, nn

from network.errors import InputError
from network.weights import load_pretrained

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESNET_BLOCKS = {
    'resnet50': (3, 4, 6, 3),
    'resnet101': (3, 4, 23, 3),
    'resnet152': (3, 8, 36, 3),
}


def build_backbone(name: str, pretrained: str = 'auto') -> nn.Module:
    """The backbone called `name` (`resnet50` | `resnet101` | `resnet152` | `timm/NAME`).

    It maps float images N x 3 x H x W, normalised by its `mean` and `std` (RGB, of images in
    [0, 1]), to the maps of its four stages, N x channels[i] x H/4.. W/4.. down to H/32, W/32.

    `pretrained` is `auto`, `none` or a file; see `network.weights.load_pretrained`.
    Raises InputError for an unknown name, or weights that cannot be loaded.
    """
    if name in RESNET_BLOCKS:
        backbone = ResNet(RESNET_BLOCKS[name])
        load_pretrained(backbone, name, pretrained)
        return backbone
    if name.startswith('timm/'):
        from network.timm_models import TimmBackbone  # timm takes seconds to import

        return TimmBackbone(name, pretrained)
    raise InputError(f'unknown backbone {name!r}: use {", ".join(RESNET_BLOCKS)} or timm/NAME')


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution around a shortcut: N x C_in x H x W ->
    N x 4 width x H/stride x W/stride."""

    def __init__(self, channels: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or channels != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, 4 * width, 1, stride, bias=False),
                                            nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """ResNet (He et al., CVPR 2016) without its classifier, under torchvision's names.

    Written out because it is part of the paper's network, and because torchvision takes as long
    to import as PyTorch.
    """

    channels = (256, 512, 1024, 2048)
    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, blocks: tuple[int, ...]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(64, 64, blocks[0], stride=1)
        self.layer2 = self._stage(256, 128, blocks[1], stride=2)
        self.layer3 = self._stage(512, 256, blocks[2], stride=2)
        self.layer4 = self._stage(1024, 512, blocks[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    @staticmethod
    def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = Bottleneck(channels, width, stride)
        return nn.Sequential(first, *(Bottleneck(4 * width, width) for _ in range(blocks - 1)))

    def new_parameters(self) -> list[nn.Parameter]:
        """Parameters that no pretrained weights exist for."""
        return []

    def stem_parameters(self) -> list[nn.Parameter]:
        return [*self.conv1.parameters(), *self.bn1.parameters()]

    def forward(self, images: Tensor) -> list[Tensor]:
        stage1 = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        stage2 = self.layer1(stage1)
        stage3 = self.layer2(stage2)
        stage4 = self.layer3(stage3)
        stage5 = self.layer4(stage4)
        return [stage2, stage3, stage4, stage5]
