"""Linear layers for inference: fp32 in, fp32 out, whatever is computed with in between.

On the CPU the weights are packed once in the order that oneDNN reads them in. For the few rows
of a decoding step that is two to three times as fast in fp32 as a plain product, and no row
depends on how many there are beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipcap.precision import Mode, can_pack

ZERO_POINT = 128
"""Unsigned bytes are what VNNI multiplies with signed ones; this one stands for 0."""
LARGEST = 127


def linear(weight: Tensor, bias: Tensor | None, mode: Mode) -> nn.Module:
    """Shapes: weight `(N, M)`, bias `(N,)`; of the layer: `(..., M)` → `(..., N)`."""
    weight = weight.detach()
    bias = None if bias is None else bias.detach()
    if weight.device.type != "cpu" or not can_pack():
        return _Plain(weight, bias, torch.bfloat16 if mode == "bf16" else torch.float32)
    if mode == "int8":
        return _Quantized(weight, bias)
    return _Packed(weight, bias, torch.bfloat16 if mode == "bf16" else torch.float32)


def convert_linears(module: nn.Module, mode: Mode) -> None:
    """Replace the linear layers in a module, in place; those of attention in torch's own
    `nn.MultiheadAttention`, which reads their weights itself, stay."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, linear(child.weight, child.bias, mode))
        elif not isinstance(child, nn.MultiheadAttention):
            convert_linears(child, mode)


class _Plain(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self._weight = weight.to(dtype)
        self._bias = None if bias is None else bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self._weight.dtype), self._weight, self._bias).float()


class _Packed(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), None)
        self._bias = None if bias is None else bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._dtype), self._weight, self._bias, "none", [], ""
        )
        return found.float()


class _Quantized(nn.Module):
    """Bytes times bytes, summed in whole numbers. Each output of the weights and each row of
    the input has its own scale."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._scales = weight.float().abs().amax(dim=1).clamp_min(1e-12) / LARGEST  # (N,)
        rounded = (weight / self._scales[:, None]).round().to(torch.int8).contiguous()
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias

    def forward(self, x: Tensor) -> Tensor:
        scales = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / LARGEST
        # Adding 128.5 before the cut to whole numbers rounds, and moves 0 to its place.
        rounded = (x / scales).add_(ZERO_POINT + 0.5).to(torch.uint8)
        products: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, ZERO_POINT, self._weight, self._scales, self._zeros, None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        if self._bias is None:
            return products.mul_(scales)
        return torch.addcmul(self._bias, products, scales)
