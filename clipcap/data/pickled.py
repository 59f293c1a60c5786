"""The embeddings that ClipCap's authors' own scripts wrote (`parse_coco.py`), made into a set
that training reads.

Their file is a pickle, and a pickle can name any function to be called when it is read. Here it
may name what a tensor is made of and nothing else, and the storage's own bytes go through torch's
`weights_only` reader.
"""

from __future__ import annotations

import io
import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipcap.data.folder import METADATA
from clipcap.data.stored import EMBEDDINGS, ENCODER, KEY
from clipcap.errors import DataError
from clipcap.weights import write_weights


def convert_pickle(source: Path, folder: Path, encoder: str) -> int:
    """Write the set to `folder`; returns how many images it has. The authors encoded an image
    once for each of its captions: here it has one row.

    Raises: DataError, also where `folder` holds a set already.
    """
    for name in (EMBEDDINGS, METADATA):
        if (folder / name).exists():
            raise DataError(f"{folder / name}: is there already; choose another folder")
    embeddings, captions = _read(source)
    rows: dict[str, int] = {}
    texts: dict[str, list[str]] = {}
    for number, caption in enumerate(captions):
        row, text = caption.get("clip_embedding", number), caption.get("caption")
        if not isinstance(row, int) or not 0 <= row < len(embeddings):
            raise DataError(f"{source}: captions[{number}]: no embedding {row!r}")
        if not isinstance(text, str):
            raise DataError(f"{source}: captions[{number}]: 'caption' is missing")
        key = str(caption.get("image_id", row))
        rows.setdefault(key, row)
        texts.setdefault(key, []).append(text)
    folder.mkdir(parents=True, exist_ok=True)
    kept = embeddings[list(rows.values())].contiguous()
    part = folder / f"{EMBEDDINGS}.part"
    write_weights({KEY: kept}, part, {ENCODER: encoder})
    lines = (json.dumps({"image_id": key, "captions": texts[key]}) for key in rows)
    (folder / METADATA).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.replace(part, folder / EMBEDDINGS)
    return len(rows)


def _read(source: Path) -> tuple[Tensor, list[dict[str, Any]]]:
    """Embeddings `(N, D)` and captions. Raises: DataError."""
    try:
        with source.open("rb") as file:
            data = _OnlyTensors(file).load()
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}") from error
    # A foreign or hostile pickle fails in as many ways as there are.
    except Exception as error:
        raise DataError(f"{source}: cannot be read as embeddings and captions: {error}") from error
    embeddings = data.get("clip_embedding") if isinstance(data, dict) else None
    captions = data.get("captions") if isinstance(data, dict) else None
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2:
        raise DataError(f"{source}: no matrix 'clip_embedding'")
    if not isinstance(captions, list) or not all(isinstance(row, dict) for row in captions):
        raise DataError(f"{source}: no list 'captions'")
    return embeddings.detach(), captions


def _storage(content: bytes) -> Any:
    """In place of torch's own, which reads these bytes as a pickle without any limit."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): OrderedDict,
}


class _OnlyTensors(pickle.Unpickler):
    """Refuses every name but those a pickled tensor needs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which could run code")
        return ALLOWED[module, name]
