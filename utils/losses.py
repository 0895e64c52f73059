"""The losses of MFF-Net 1 (classification, with self-distillation on CUB-200-2011) and of MFF-Net 2
(class-agnostic segmentation): tensors in, a dict of scalars out.

`total` is what training minimises; the other entries are only shown.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softmax

from network.mffnet import upsample


def classification_loss(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """The classifier, and MFF-Net 1 on ImageNet-1K: cross-entropy; logits N x classes, label N
    int64."""
    return {'total': cross_entropy(logits.float(), label)}


def distillation_loss(deep: Tensor, fused: Tensor, label: Tensor) -> dict[str, Tensor]:
    """MFF-Net 1 on CUB-200-2011, the paper's self-distillation: the deep branch learns the label,
    the fused one learns from the deep one.

    deep, fused: logits N x classes; label: N int64. The mean of cross-entropy(deep, label) and
    cross-entropy(fused, softmax(deep)), the latter's target detached.
    """
    deep_loss = cross_entropy(deep, label)
    fused_loss = cross_entropy(fused, softmax(deep.detach(), dim=1))
    return {'total': (deep_loss + fused_loss) / 2, 'deep': deep_loss, 'fused': fused_loss}


def segmentation_loss(logits: Tensor, foreground: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """MFF-Net 2: binary cross-entropy. The pixels of the conflict region, which are not
    `valid`, contribute no loss, but count in the mean.

    logits: N x 1 x h x w, upsampled here to the target's size; foreground, valid: N x H x W bool.
    """
    logits = upsample(logits, foreground.shape[1:]).squeeze(1)
    return {'total': binary_cross_entropy_with_logits(
        logits, foreground.to(logits.dtype), weight=valid.to(logits.dtype))}


def segmentation_probability(logits: Tensor, size: int) -> Tensor:
    """Logits N x 1 x h x w -> foreground probability N x size x size, float32."""
    return torch.sigmoid(upsample(logits, (size, size))).squeeze(1)
