"""Linear layers for inference: fp32 in, fp32 out, whatever is computed with in between. A GELU may
follow, in its form by tanh.

On the CPU the weights are packed once in the order that oneDNN reads them in. For the few rows
of a decoding step that is two to three times as fast in fp32 as a plain product, and no row
depends on how many there are beside it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipcap.precision import Mode, can_pack

ZERO_POINT = 128
"""Unsigned bytes are what VNNI multiplies with signed ones; this one stands for 0."""
LARGEST = 127
TWICE_SQRT_2_OVER_PI = 2 * math.sqrt(2 / math.pi)


def linear(weight: Tensor, bias: Tensor | None, mode: Mode, *, gelu: bool = False) -> nn.Module:
    """Before a GELU goes a layer that may say in bf16 what the next is to read in it.

    Shapes: weight `(N, M)`, bias `(N,)`; of the layer: `(..., M)` → `(..., N)`.
    """
    weight = weight.detach()
    bias = None if bias is None else bias.detach()
    if weight.device.type != "cpu" or not can_pack():
        return _Plain(weight, bias, torch.bfloat16 if mode == "bf16" else torch.float32, gelu)
    if mode == "int8":
        return _Quantized(weight, bias, gelu)
    return _Packed(weight, bias, torch.bfloat16 if mode == "bf16" else torch.float32, gelu)


def convert_linears(module: nn.Module, mode: Mode) -> None:
    """Replace the linear layers in a module, in place; those of attention in torch's own
    `nn.MultiheadAttention`, which reads their weights itself, stay."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, linear(child.weight, child.bias, mode))
        elif not isinstance(child, nn.MultiheadAttention):
            convert_linears(child, mode)


class _Plain(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, gelu: bool) -> None:
        super().__init__()
        self._weight = weight.to(dtype)
        self._bias = None if bias is None else bias.to(dtype)
        self._gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        found = functional.linear(x.to(self._weight.dtype), self._weight, self._bias)
        return functional.gelu(found, approximate="tanh") if self._gelu else found.float()


class _Packed(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, gelu: bool) -> None:
        super().__init__()
        self._dtype = dtype
        self._gelu = gelu
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), None)
        self._bias = None if bias is None else bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        name, algorithm = ("gelu", "tanh") if self._gelu else ("none", "")
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._dtype), self._weight, self._bias, name, [], algorithm
        )
        return found if self._gelu else found.float()


class _Quantized(nn.Module):
    """Bytes times bytes, summed in whole numbers. Each output of the weights and each row of
    the input has its own scale."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool) -> None:
        super().__init__()
        self._gelu = gelu
        self._scales = weight.float().abs().amax(dim=1).clamp_min(1e-12) / LARGEST  # (N,)
        rounded = (weight / self._scales[:, None]).round().to(torch.int8).contiguous()
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias

    def forward(self, x: Tensor) -> Tensor:
        scales = x.abs().amax(dim=-1, keepdim=True).clamp_min_(1e-12).div_(LARGEST)
        # Adding 128.5 before the cut to whole numbers rounds, and moves 0 to its place. To bytes
        # by way of int32, which torch has vectorised both steps to.
        shifted = (x * scales.reciprocal()).add_(ZERO_POINT + 0.5)
        rounded = shifted.to(torch.int32).to(torch.uint8)
        products: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, ZERO_POINT, self._weight, self._scales, self._zeros, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        if self._bias is None:
            found = products.mul_(scales)
        else:
            found = torch.addcmul(self._bias, products, scales)
        return _gelu(found) if self._gelu else found


def _gelu(x: Tensor) -> Tensor:
    """`x / 2 * (1 + tanh(t))`, with t = √(2/π) (x + 0.044715 x³). That is `x * sigmoid(2 t)`, and
    torch takes half as long over it on a CPU as over its own."""
    factor = x.square().mul_(TWICE_SQRT_2_OVER_PI * 0.044715).add_(TWICE_SQRT_2_OVER_PI)
    return factor.mul_(x).sigmoid_().mul_(x)
