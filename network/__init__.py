"""What the paper draws: backbones, MFF-Net, classifiers, and the loading of their weights."""

from network.classifier import build_classifier
from network.errors import InputError
from network.mffnet import CamNet, SegNet
from network.weights import load_checkpoint

__all__ = ['CamNet', 'InputError', 'SegNet', 'build_classifier', 'load_checkpoint']
