"""Batch norms whose statistics stand still are part of the convolution before them, and on a CPU
so is the activation after it: a tower without them computes the same in fewer passes over what it
has computed, most of the time of a CPU.

Only timm's EfficientNets are known here; every other tower stays as it is.
Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-
Arithmetic-Only Inference", arXiv 1712.05877, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, pad_same
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from clipcap.precision import can_pack

AS_ONE: Mapping[type[nn.Module], tuple[str, list[float]]] = {
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
}
"""Activations that oneDNN applies to what a convolution is about to write."""


def fold_norms(tower: nn.Module) -> None:
    """Put the norms of a tower that is not trained, and activations, into its convolutions."""
    for parent, conv_name, norm_name in _pairs(tower):
        conv, norm = getattr(parent, conv_name), getattr(parent, norm_name)
        folded = fuse_conv_bn_eval(conv, norm)
        as_one = can_pack() and type(norm.act) in AS_ONE
        setattr(parent, conv_name, _Activated(folded, norm.act) if as_one else folded)
        setattr(parent, norm_name, nn.Identity() if as_one else norm.act)


def fold_norms_in_training(tower: nn.Module) -> None:
    """The same at each step, anew: what learns, and what is saved, are the weights as they were."""
    for parent, conv_name, norm_name in _pairs(tower):
        conv, norm = getattr(parent, conv_name), getattr(parent, norm_name)
        conv.forward = partial(_normed, conv, norm)
        norm.forward = norm.act.forward


def _pairs(tower: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Each convolution with the norm after it, by their names in the module that has both.

    In an EfficientNet and in its blocks, they are defined one after the other.
    """
    trunks = [module for module in tower.modules() if isinstance(module, EfficientNet)]
    for parent in [module for trunk in trunks for module in trunk.modules()]:
        for (conv_name, conv), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                yield parent, conv_name, norm_name


class _Activated(nn.Module):
    """A convolution and the activation after it: on a CPU in one pass."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = conv, act
        self._name, self._scalars = AS_ONE[type(act)]

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: pixels `(B, C, H, W)` → `(B, C', H', W')`."""
        conv = self.conv
        if pixels.device.type != "cpu":
            found: Tensor = self.act(conv(pixels))
            return found
        if isinstance(conv, Conv2dSame):
            pixels = pad_same(pixels, conv.kernel_size, conv.stride, conv.dilation)
        found = torch.ops.mkldnn._convolution_pointwise(
            pixels, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups,
            self._name, self._scalars, "",
        )  # fmt: skip
        return found


def _normed(conv: nn.Conv2d, norm: BatchNormAct2d, pixels: Tensor) -> Tensor:
    """Shapes: pixels `(B, C, H, W)` → `(B, C', H', W')`."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    if isinstance(conv, Conv2dSame):
        pixels = pad_same(pixels, conv.kernel_size, conv.stride, conv.dilation)
    found: Tensor = conv._conv_forward(pixels, conv.weight * scale[:, None, None, None], bias)
    return found
