"""A network made ready to predict: batch norm folded into the convolutions, weights in half
precision where that was asked for."""

from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from network.mffnet import Float32Conv

SIDE = 64
COARSE = SIDE // 4     # the side of the maps of stage 2
TOLERANCE = 1e-3


@torch.no_grad()
def ready_to_predict(model: nn.Module, half: torch.dtype | None = None) -> nn.Module:
    """A copy of `model` (images N x 3 x H x W -> a tensor), in evaluation mode, for inference.

    Each batch norm is folded into the convolution that feeds it, unless the copy would then
    compute something else (beyond rounding). With `half`, to be run under autocast, convolutions
    have weights of that type, but for those that give maps finer than stage 2's: these stay in
    float32, since pseudo masks feel the rounding there.
    """
    ready = deepcopy(model).eval()
    sample = torch.rand((2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)) - 0.5
    sample = sample.to(next(model.parameters()).device)
    try:
        trace = _trace(ready, sample)
    except (RuntimeError, AssertionError, ValueError):  # a timm model that takes one size only
        return ready
    for conv, norm in trace.pairs:
        _fold(ready.get_submodule(conv), ready.get_submodule(norm))
        _replace(ready, norm)
    if not _close(ready(sample), trace.output):
        ready = deepcopy(model).eval()
    if half is not None:
        for name, side in trace.sides.items():
            _halve(ready.get_submodule(name), half, fine=side > COARSE)
    return ready


class _Trace(NamedTuple):
    output: Tensor                  # what the model makes of the sample
    sides: dict[str, int]           # each convolution's name -> the side of the maps it gives
    pairs: list[tuple[str, str]]    # (convolution, the batch norm that alone takes its output)


def _trace(model: nn.Module, sample: Tensor) -> _Trace:
    sides, pairs, calls, hooks = {}, [], {}, []
    given = {}  # holds each convolution's output, so that no other tensor takes its id

    def remember(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        if isinstance(module, nn.Conv2d):
            sides[name] = output.shape[-1]
            given[id(output)] = name, output
        elif id(inputs[0]) in given:
            pairs.append((given[id(inputs[0])][0], name))

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            hooks.append(module.register_forward_hook(partial(remember, name)))
    try:
        output = model(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return _Trace(output, sides, [pair for pair in pairs if all(calls[name] == 1 for name in pair)])


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    parts = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
             norm.bias)
    folded = fuse_conv_bn_weights(*(part.double() if isinstance(part, Tensor) else part
                                    for part in parts))
    conv.weight, conv.bias = (nn.Parameter(part.float(), requires_grad=False) for part in folded)


def _replace(model: nn.Module, norm: str) -> None:
    """Put in the norm's place what is left of it: in timm's, an activation."""
    parent, _, name = norm.rpartition('.')
    left = getattr(model.get_submodule(norm), 'act', nn.Identity())
    setattr(model.get_submodule(parent), name, left)


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max())


def _halve(conv: nn.Conv2d, half: torch.dtype, fine: bool) -> None:
    if fine:
        conv.forward = partial(_in_float32, conv.forward)
    elif not isinstance(conv, Float32Conv):
        conv.to(half)


def _in_float32(forward: partial, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float())
