"""Preparation of a network for inference: batch norm fused into convolutions, weights in lower
precision, oneDNN kernels on the CPU."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import wraps
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from network.mffnet import Float32Conv1x1

SAMPLE_SIDE = 224           # of the sample image, where the network does not say
TOLERANCE = 1e-3     # of the largest value


@torch.no_grad()
def prepare_inference(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of `model` (images N x 3 x H x W -> a tensor) in evaluation mode, for inference.

    If `dtype` is given (for use under autocast), the weights of convolutions are cast to it.
    Convolutions whose output is finer than stride 4 stay in float32, because rounding there
    degrades pseudo masks.
    """
    model = deepcopy(model).eval()
    side = getattr(model, 'input_side', SAMPLE_SIDE)
    sample = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0)) - 0.5
    sample = sample.to(next(model.parameters()).device)
    model = fuse_batch_norm(model, sample)
    if dtype is not None:
        _lower_precision(model, sample, dtype)
    return model


def prefer_onednn(model: nn.Module) -> None:
    """Make oneDNN compute the network's float32 1x1 convolutions on the CPU; changes them in place.

    On one core, PyTorch computes them by BLAS if a batch has fewer than 16 images, unless they are
    strided or dilated. On AMD CPUs, MKL takes twice as long as oneDNN. Dilation does not change
    what a 1x1 kernel computes.
    """
    for module in model.modules():
        if (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
                and module.weight.dtype == torch.float32):
            module.dilation = (2, 2)


def fuse_batch_norm(model: nn.Module, sample: Tensor) -> nn.Module:
    """The network with each batch norm fused into the convolution that is registered before it.

    The order of registration may differ from that of execution, so outputs are compared on the
    sample. If any differs, `model` is returned unchanged.
    """
    fused, changed = deepcopy(model), set()
    for parent, module in list(fused.named_modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                # timm's batch norms hold the activation that follows.
                setattr(module, norm_name, getattr(norm, 'act', nn.Identity()))
                changed.add(f'{parent}.{name}'.lstrip('.'))
    compared = [name for name, module in model.named_modules() if name not in changed
                and isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
    expected, found = (_outputs(network, compared, sample) for network in (model, fused))
    return fused if all(_close(found[name], expected[name]) for name in expected) else model


def _outputs(model: nn.Module, names: Iterable[str], sample: Tensor) -> dict[str, Tensor]:
    """The outputs of the named modules, and under '' that of the whole network, on a sample."""
    outputs: dict[str, Tensor] = {}
    hooks = [model.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: outputs.update({name: output}))
             for name in names]
    outputs[''] = model(sample)
    for hook in hooks:
        hook.remove()
    return outputs


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max())


def _lower_precision(model: nn.Module, sample: Tensor, dtype: torch.dtype) -> None:
    convs = {name: module for name, module in model.named_modules()
             if isinstance(module, nn.Conv2d) and not isinstance(module, Float32Conv1x1)}
    outputs = _outputs(model, convs, sample)
    for name, conv in convs.items():
        if name in outputs and outputs[name].shape[-1] > sample.shape[-1] / 4:
            conv.forward = _in_float32(conv.forward)
        else:
            conv.to(dtype)


def _in_float32(forward: Callable) -> Callable:
    @wraps(forward)
    def call(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    return call
