"""A set of which only the embeddings were kept, as `clipcap data convert-pickle` writes it:
`embeddings.safetensors`, whose row N belongs to line N of `metadata.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clipcap.data.example import Example, Findings, with_words
from clipcap.data.folder import METADATA
from clipcap.data.pictures import Picture, StoredEmbedding
from clipcap.data.texts import json_lines
from clipcap.errors import DataError

EMBEDDINGS = "embeddings.safetensors"
KEY = "embeddings"
ENCODER = "encoder"
"""In the file's metadata: the tower that made them, 'model:pretrained_tag'."""


def read_stored(folder: Path, findings: Findings) -> list[Example]:
    """Raises: DataError, naming the file and the line."""
    file, metadata = folder / EMBEDDINGS, folder / METADATA
    examples = []
    lines = 0
    for row, (number, data) in enumerate(json_lines(metadata)):
        lines += 1
        where = f"{metadata}, line {number}"
        captions = data.get("captions")
        if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            findings.problem(f"{where}: 'captions' must be a list of texts")
            continue
        kept = with_words(captions, where, findings)
        if kept:
            name = str(data.get("image_id", row))
            image_id = int(name) if name.isdecimal() else None
            examples.append(Example(StoredEmbedding(file, row, name), kept, image_id))
        else:
            findings.problem(f"{where}: no caption")
    rows, _, _ = _look_at(file)
    if rows != lines:
        raise DataError(f"{file}: {rows} embeddings for the {lines} lines of {metadata}")
    if not examples:
        raise DataError(f"{metadata}: no images")
    return examples


def stored_embeddings(
    pictures: Sequence[Picture], encoder: str | None, embedding_dim: int
) -> Tensor | None:
    """The embeddings `(N, D)` of pictures that are nothing else; None where they are images.

    Raises: DataError where they were made by another tower than `encoder`.
    """
    stored = [picture for picture in pictures if isinstance(picture, StoredEmbedding)]
    if not stored:
        return None
    if len(stored) < len(pictures):
        raise DataError(f"{stored[0].file}: stored embeddings cannot be mixed with images")
    parts: dict[Path, Tensor] = {}
    for file in {picture.file for picture in stored}:
        _, dim, made_by = _look_at(file)
        if made_by != encoder or dim != embedding_dim:
            raise DataError(
                f"{file}: its embeddings are of {made_by} and {dim} wide; the encoder of this "
                f"run is {encoder or 'a model folder'} and gives {embedding_dim}"
            )
        with safe_open(file, "pt") as tensors:
            parts[file] = tensors.get_tensor(KEY)
    return torch.stack([parts[picture.file][picture.row] for picture in stored]).float()


def _look_at(file: Path) -> tuple[int, int, str]:
    """Rows, width, and the tower that made them."""
    try:
        with safe_open(file, "pt") as tensors:
            rows, dim = tensors.get_slice(KEY).get_shape()
            return rows, dim, (tensors.metadata() or {}).get(ENCODER, "an unknown tower")
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{file}: not a matrix named {KEY!r} in safetensors: {error}") from error
