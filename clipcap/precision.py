"""How exactly to compute, fp32, bf16 or int8, and which of them suits the processor at hand."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from clipcap.errors import OptionsError

Mode = Literal["fp32", "bf16", "int8"]
Precision = Literal["auto"] | Mode

MODES = get_args(Mode)
X86 = ("x86_64", "AMD64")


@dataclass(frozen=True)
class Chosen:
    """The mode to compute in, and why."""

    mode: Mode
    reason: str


def choose(wanted: str, device: torch.device) -> Chosen:
    """`"auto"` is bf16 where the device has instructions for it, else fp32. int8 is faster
    still, but what it costs in quality depends on the decoder, so it must be asked for.

    Raises: OptionsError, where the device cannot do what is asked for.
    """
    possible = possible_modes(device)
    if wanted == "auto":
        if "bf16" in possible:
            return Chosen("bf16", "this processor has instructions for it")
        return Chosen("fp32", "this processor has no instructions for bf16")
    for mode in MODES:
        if wanted == mode and mode in possible:
            return Chosen(mode, "asked for")
    if wanted in MODES:
        raise OptionsError(f"precision {wanted}: this processor can only {', '.join(possible)}")
    raise OptionsError(f"precision must be one of auto, {', '.join(MODES)}, not {wanted!r}")


def possible_modes(device: torch.device) -> list[Mode]:
    if device.type != "cuda":
        return cpu_modes(_cpu_features())
    return ["fp32", "bf16"] if torch.cuda.is_bf16_supported(False) else ["fp32"]


def cpu_modes(features: Mapping[str, Any]) -> list[Mode]:
    """Without instructions for it bf16 is slower than fp32, and the sums of int8 overflow."""
    modes: list[Mode] = ["fp32"]
    if can_pack() and (features.get("avx512_bf16") or features.get("amx_bf16")):
        modes.append("bf16")
    if can_pack() and (features.get("avx512_vnni") or features.get("amx_int8")):
        modes.append("int8")
    return modes


def can_pack() -> bool:
    """Whether torch can put weights in the order that oneDNN reads them in."""
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and platform.machine() in X86


def _cpu_features() -> Mapping[str, Any]:
    """By name, as torch tells them; older versions do not."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)
    found: Mapping[str, Any] = capabilities()
    return found
