"""Stage 1's classifiers (Table 1): which class it is, so that stage 3 need only say where.

The paper's are EfficientNet-B7 and DenseNet-161.
"""

from pathlib import Path

from torch import nn
from torchvision import models

from network import InputError
from network.backbone import IMAGENET_MEAN, IMAGENET_STD, create_timm
from network.weights import load_checkpoint, load_pretrained, read_state

TORCHVISION_ARCHS = {'efficientnet_b7': (models.efficientnet_b7, 'classifier.1'),
                     'densenet161': (models.densenet161, 'classifier'),
                     'resnet50': (models.resnet50, 'fc')}
IMAGENET_CLASSES = 1000


def build_classifier(arch: str, classes: int, pretrained: str = 'auto',
                     keep_head: bool = False) -> nn.Module:
    """Normalised images N x 3 x H x W -> logits N x classes.

    `arch`: `efficientnet_b7` (dropout 0.5, stochastic depth 0.2) | `densenet161` | `resnet50` |
    `timm/NAME`; `pretrained` as in `network.weights.load_pretrained`. The last layer is new, at
    PyTorch's default initialisation, unless `keep_head` asks for the ImageNet classes as they are.
    The model has `mean` and `std` (per RGB channel in [0, 1]) and `head_name`, its last layer.
    Raises InputError for an unknown name, or weights that cannot be loaded.
    """
    if keep_head and classes != IMAGENET_CLASSES:
        raise InputError(f'the pretrained classifier has {IMAGENET_CLASSES} classes, not '
                         f'{classes}: leave --clsnum alone, or train one')
    if arch in TORCHVISION_ARCHS:
        create, head_name = TORCHVISION_ARCHS[arch]
        model = create()
        model.head_name = head_name
        model.mean, model.std = IMAGENET_MEAN, IMAGENET_STD
        load_pretrained(model, arch, pretrained)
    elif arch.startswith('timm/'):
        model = create_timm(arch, pretrained)
        model.mean = tuple(model.pretrained_cfg['mean'])
        model.std = tuple(model.pretrained_cfg['std'])
        model.input_side = model.pretrained_cfg['input_size'][-1]
        model.head_name = model.pretrained_cfg['classifier']
    else:
        raise InputError(f'unknown classifier {arch!r}: use {", ".join(TORCHVISION_ARCHS)} '
                         'or timm/NAME')
    if not keep_head:
        replace_head(model, classes)
    return model


def parameter_groups(model: nn.Module, lr: float) -> list[dict]:
    """SGD's groups: the new last layer at `lr`, the rest at a tenth."""
    head = list(model.get_submodule(model.head_name).parameters())
    rest = [p for p in model.parameters() if all(p is not h for h in head)]
    return [{'params': head, 'lr': lr}, {'params': rest, 'lr': lr / 10}]


def replace_head(model: nn.Module, classes: int) -> None:
    """Give the classifier a new last layer. Raises InputError if it is not one linear layer."""
    old = dict(model.named_modules()).get(str(model.head_name))  # of some timm models a tuple
    if not isinstance(old, nn.Linear):
        raise InputError(f'the last layer of this timm model, {model.head_name}, is not one linear '
                         'layer: choose another --arch')
    model.set_submodule(model.head_name, nn.Linear(old.in_features, classes))


def load_cls(checkpoint: str | Path, arch: str) -> nn.Module:
    """The classifier of a checkpoint, which says its number of classes. Raises InputError if it is
    of another network."""
    model = build_classifier(arch, IMAGENET_CLASSES, pretrained='none', keep_head=True)
    bias = read_state(checkpoint).get(f'{model.head_name}.bias')
    if bias is None:
        raise InputError(f'{checkpoint} is not a checkpoint of {arch}: check the file and --arch')
    replace_head(model, len(bias))
    load_checkpoint(model, checkpoint)
    return model
