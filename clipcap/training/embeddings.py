"""Every image is encoded once: embeddings in safetensors shards beside the run, so that a
run that is killed goes on with the next shard."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from clipcap.data.pictures import Picture
from clipcap.encoder import Encoder

SHARD_IMAGES = 512
BATCH_IMAGES = 32


def embed(encoder: Encoder, pictures: Sequence[Picture], cache: Path, *, label: str) -> Tensor:
    """Embeddings of images, from the cache where they are there: `(N, D)`, not normalised.

    Raises: DataError, naming the image that cannot be read.
    """
    folder = cache / fingerprint(encoder, pictures)
    folder.mkdir(parents=True, exist_ok=True)
    shards = [pictures[i : i + SHARD_IMAGES] for i in range(0, len(pictures), SHARD_IMAGES)]
    parts = []
    with tqdm(total=len(pictures), desc=f"encoding {label}", unit="image") as bar:
        for number, shard in enumerate(shards):
            file = folder / f"{number:05d}.safetensors"
            if not file.exists():
                part = _encode(encoder, shard, bar)
                save_file({"embeddings": part}, file.with_suffix(".part"))
                os.replace(file.with_suffix(".part"), file)
            else:
                bar.update(len(shard))
            parts.append(load_file(file)["embeddings"])
    return torch.cat(parts)


def fingerprint(encoder: Encoder, pictures: Sequence[Picture]) -> str:
    """Changes with the tower, the list of images and the size or time of any of them."""
    digest = hashlib.sha256(encoder.fingerprint().encode())
    for picture in pictures:
        digest.update(f"{picture.stamp()}\n".encode())
    return digest.hexdigest()[:16]


def _encode(encoder: Encoder, pictures: Sequence[Picture], bar: tqdm[Any]) -> Tensor:
    parts = []
    with ThreadPoolExecutor(2) as pool, torch.inference_mode():
        for start in range(0, len(pictures), BATCH_IMAGES):
            batch = pictures[start : start + BATCH_IMAGES]
            read = pool.map(lambda picture: encoder.preprocess(picture.open()), batch)
            parts.append(encoder.encode(torch.stack(list(read))).float().cpu())
            bar.update(len(batch))
    return torch.cat(parts)
