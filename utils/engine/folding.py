"""A network made ready to predict: batch norm folded into the convolutions, weights in half
precision where that was asked for."""

from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from network.mffnet import Float32Conv

SIDE = 64
COARSE = SIDE // 4     # the side of the maps of stage 2
TOLERANCE = 1e-3
FOLDABLE = (nn.Conv2d, Conv2dSame)  # others may change their weights before they use them


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
    if not _compute_the_same(_trace(ready, sample), trace):
        ready = deepcopy(model).eval()
    if half is not None:
        for name, output in trace.outputs.items():
            if name:
                _halve(ready.get_submodule(name), half, fine=output.shape[-1] > COARSE)
    return ready


class _Trace(NamedTuple):
    outputs: dict[str, Tensor]      # of the whole model ('') and of each convolution, by its name
    pairs: list[tuple[str, str]]    # (convolution, the batch norm that alone takes its output)


def _trace(model: nn.Module, sample: Tensor) -> _Trace:
    outputs, pairs, calls, hooks = {}, [], {}, []

    def remember(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        if isinstance(module, nn.Conv2d):
            outputs[name] = output  # held, so that no other tensor takes its id
        pairs.extend((conv, name) for conv, given in outputs.items()
                     if isinstance(module, nn.BatchNorm2d) and given is inputs[0])

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            hooks.append(module.register_forward_hook(partial(remember, name)))
    try:
        outputs[''] = model(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return _Trace(outputs, [(conv, norm) for conv, norm in pairs
                            if calls[conv] == calls[norm] == 1
                            and type(model.get_submodule(conv)) in FOLDABLE])


def _compute_the_same(folded: _Trace, plain: _Trace) -> bool:
    """Whether all but the convolutions that were to change give what they gave."""
    changed = {conv for conv, _ in plain.pairs}
    return all(_close(folded.outputs[name], output) for name, output in plain.outputs.items()
               if name not in changed)


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
