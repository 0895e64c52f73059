"""Networks built from a checkpoint alone, which says its number of classes."""

from pathlib import Path

from torch import nn

from network.errors import InputError
from network.mffnet import CamNet, SegNet
from network.weights import load_checkpoint, read_state


def load_cam(checkpoint: str | Path, backbone: str) -> CamNet:
    """The CAM network of a checkpoint. Raises InputError if it is of another network."""
    state = read_state(checkpoint)
    head = state.get('head.weight', state.get('linear.weight'))
    if head is None:
        raise InputError(f'{checkpoint} is not a checkpoint of the cam stage: choose one that is')
    if len(head) < 2:
        raise InputError(f'{checkpoint} has one class, as those of the seg stage: choose a '
                         'checkpoint of the cam stage, of two classes or more')
    model = CamNet(len(head), backbone, pretrained='none')
    load_checkpoint(model, checkpoint)
    return model


def load_seg(checkpoint: str | Path, backbone: str) -> SegNet:
    """The segmentation network of a checkpoint. Raises InputError as `load_cam`."""
    model = SegNet(backbone, pretrained='none')
    load_checkpoint(model, checkpoint)
    return model


def load_cls(checkpoint: str | Path, arch: str) -> nn.Module:
    """The classifier of a checkpoint. Raises InputError as `load_cam`."""
    # Slow to import.
    from network.classifier import IMAGENET_CLASSES, build_classifier, replace_head

    model = build_classifier(arch, IMAGENET_CLASSES, pretrained='none', keep_head=True)
    bias = read_state(checkpoint).get(f'{model.head_name}.bias')
    if bias is None:
        raise InputError(f'{checkpoint} is not a checkpoint of {arch}: check the file and the '
                         'architecture')
    replace_head(model, len(bias))
    load_checkpoint(model, checkpoint)
    return model
