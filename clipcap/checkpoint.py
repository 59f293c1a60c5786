"""Reading the checkpoints of ClipCap's authors: a `state_dict` saved by torch.save.

What is known of the model follows from names and shapes alone; nothing in the file is run.
Source: github.com/rmokady/CLIP_prefix_caption.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipcap.errors import BundleError
from clipcap.mappers import LinearConfig, MapperConfig, MLPConfig, TransformerConfig

MAPPER = "clip_project."
DECODER = "gpt."
TOKENS = "gpt.transformer.wte.weight"
POSITIONS = "gpt.transformer.wpe.weight"
HEAD = "gpt.lm_head.weight"  # tied to TOKENS
WRAPPERS = {"module", "_orig_mod"}  # what DataParallel and torch.compile put into names
# Masks that old GPT-2s kept among their weights. Never h.N.attn.c_attn.bias.
MASK = re.compile(r"gpt\.transformer\.h\.\d+\.attn\.(bias|masked_bias)")
ATTENTION_HEAD_WIDTH = 64  # of every GPT-2, from 124M to 1.5B


@dataclass(frozen=True)
class Checkpoint:
    """The weights by their names in the mapper and in GPT-2. They may be mapped from the file,
    so they are to be read, never written."""

    path: Path
    mapper: dict[str, Tensor]
    decoder: dict[str, Tensor]
    mapper_config: MapperConfig
    vocab_size: int
    positions: int
    layers: int

    @property
    def decoder_heads(self) -> int:
        """Raises: BundleError, where the width is of no GPT-2."""
        heads, rest = divmod(self.mapper_config.decoder_dim, ATTENTION_HEAD_WIDTH)
        if rest:
            raise BundleError(
                f"{self.path}: {TOKENS!r} is {self.mapper_config.decoder_dim} wide, "
                f"but the heads of a GPT-2 are {ATTENTION_HEAD_WIDTH} wide each"
            )
        return heads


def read_checkpoint(path: Path, *, mapper_heads: int = 8) -> Checkpoint:
    """The head count of a transformer mapper is the one size that its weights do not tell.

    Raises: BundleError, naming the file and the key.
    """
    weights = _plain_names(path, _read(path))
    tokens, positions = (_matrix(path, weights, key) for key in (TOKENS, POSITIONS))
    _require_tied(path, weights)
    try:
        mapper_config = _infer_mapper(path, weights, tokens.shape[1], mapper_heads)
    except ValueError as error:  # sizes of no possible mapper
        raise BundleError(f"{path}: no ClipCap mapper: {_reason(error)}") from error
    return Checkpoint(
        path=path,
        mapper=_below(weights, MAPPER),
        decoder=_below(weights, DECODER),
        mapper_config=mapper_config,
        vocab_size=tokens.shape[0],
        positions=positions.shape[0],
        layers=_count(weights, r"gpt\.transformer\.h\.(\d+)\."),
    )


def _read(path: Path) -> dict[str, Tensor]:
    is_archive = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if not is_archive and file.read(4) == b"PK\x03\x04":
            raise BundleError(f"{path}: cut off after {path.stat().st_size} bytes; get it again")
    try:
        # Mapped, the file is not read into memory whole; before torch 1.6 there was no archive.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        raise BundleError(f"{path}: not a file of weights alone: {_reason(error)}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise BundleError(f"{path}: damaged, or no checkpoint: {_reason(error)}") from error
    if not isinstance(loaded, dict):
        raise BundleError(f"{path}: holds a {type(loaded).__name__}, not a state_dict")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise BundleError(f"{path}: {key!r} is a {type(value).__name__}, not a weight")
    return loaded


def _reason(error: Exception) -> str:
    """torch advises on its own options after the first sentence: not what to do here."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def _plain_names(path: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        name = ".".join(part for part in key.split(".") if part not in WRAPPERS)
        if MASK.fullmatch(name):
            continue
        if name in plain:
            raise BundleError(f"{path}: {name!r} is there twice")
        if not name.startswith((MAPPER, DECODER)):
            raise BundleError(f"{path}: no ClipCap checkpoint: {key!r} is no weight of one")
        plain[name] = tensor
    return plain


def _require_tied(path: Path, weights: dict[str, Tensor]) -> None:
    if HEAD in weights and not torch.equal(weights[HEAD], weights[TOKENS]):
        raise BundleError(f"{path}: {HEAD!r} is not tied to {TOKENS!r}, as it is in GPT-2")


def _infer_mapper(
    path: Path, weights: dict[str, Tensor], decoder_dim: int, heads: int
) -> MapperConfig:
    def rows(key: str) -> int:
        """How many decoder vectors the rows of a matrix make."""
        vectors, rest = divmod(_matrix(path, weights, key).shape[0], decoder_dim)
        if rest:
            raise BundleError(
                f"{path}: {key!r} has shape {tuple(weights[key].shape)}: "
                f"its rows are no multiple of {decoder_dim}, the decoder's width"
            )
        return vectors

    def columns(key: str) -> int:
        return _matrix(path, weights, key).shape[1]

    if f"{MAPPER}prefix_const" in weights:
        return TransformerConfig(
            embedding_dim=columns(f"{MAPPER}linear.weight"),
            prefix_length=_matrix(path, weights, f"{MAPPER}prefix_const").shape[0],
            decoder_dim=decoder_dim,
            clip_length=rows(f"{MAPPER}linear.weight"),
            layers=_count(weights, r"clip_project\.transformer\.layers\.(\d+)\."),
            heads=heads,
        )
    kind = LinearConfig if f"{MAPPER}weight" in weights else MLPConfig
    first, last = ("weight",) * 2 if kind is LinearConfig else ("model.0.weight", "model.2.weight")
    return kind(
        embedding_dim=columns(MAPPER + first),
        prefix_length=rows(MAPPER + last),
        decoder_dim=decoder_dim,
    )


def _matrix(path: Path, weights: dict[str, Tensor], key: str) -> Tensor:
    if key not in weights:
        raise BundleError(f"{path}: no ClipCap checkpoint: the weight {key!r} is missing")
    if weights[key].ndim != 2:
        raise BundleError(f"{path}: {key!r} has shape {tuple(weights[key].shape)}, not a matrix's")
    return weights[key]


def _below(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): tensor.float()
        for key, tensor in weights.items()
        if key.startswith(prefix)
    }


def _count(weights: dict[str, Tensor], numbered: str) -> int:
    matches = (re.match(numbered, key) for key in weights)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)
