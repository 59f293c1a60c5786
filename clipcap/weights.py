"""Weights in safetensors files: all that a module needs and nothing else, or an error that says
what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clipcap.errors import BundleError, ClipCapError


def load_weights(
    module: torch.nn.Module, path: Path, *, tied: dict[str, str] | None = None
) -> None:
    """Load a safetensors file into a module, refusing what is not exactly the module's.

    `tied` names keys that are not stored because they share another's tensor.

    Raises: BundleError, naming the file and the key.
    """
    weights = read_weights(path)
    for alias, key in (tied or {}).items():
        if key in weights:
            weights[alias] = weights[key]
    require_fit(weights, module.state_dict(), path)
    module.load_state_dict(weights)


def require_fit(
    weights: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
    path: Path,
    prefix: str = "",
) -> None:
    """Refuse weights that are not exactly those wanted; `prefix` goes before names in the file.

    Raises: BundleError, naming the file and the key.
    """
    for key in sorted(wanted.keys() - weights.keys()):
        raise BundleError(f"{path}: the weight {prefix + key!r} is missing")
    for key in sorted(weights.keys() - wanted.keys()):
        raise BundleError(f"{path}: the weight {prefix + key!r} does not belong to this model")
    for key, tensor in weights.items():
        if tensor.shape != wanted[key].shape:
            raise BundleError(
                f"{path}: {prefix + key!r} has shape {tuple(tensor.shape)}, "
                f"the model needs {tuple(wanted[key].shape)}"
            )


def write_weights(
    weights: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file whole, or leave what is there.

    Raises: ClipCapError where there is no room for it.
    """
    try:
        save_file(dict(weights), path, metadata)
    except (SafetensorError, OSError) as error:
        raise ClipCapError(f"{path}: cannot be written: {error}") from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file. Raises: BundleError."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: not a readable safetensors file: {error}") from error
