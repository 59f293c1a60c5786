"""Every image is encoded once, and where asked to some other views of it: embeddings in
safetensors shards beside the run, so that a run that is killed goes on with the next shard. Then
they are put together in one file, which is mapped into memory: there may be more than fit."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from clipcap.data.pictures import Picture
from clipcap.data.stored import stored_embeddings
from clipcap.encoder import Encoder
from clipcap.training.augment import augment
from clipcap.weights import write_weights

SHARD_IMAGES = 512
BATCH_IMAGES = 32
READING_THREADS = 2


def embed(
    encoder: Encoder,
    pictures: Sequence[Picture],
    cache: Path,
    *,
    label: str,
    views: int = 1,
    unit: bool = False,
) -> Tensor:
    """Embeddings of images, from the cache where they are there: `(N, V, D)`, where asked to of
    unit length. The first view of an image is the image as it is.

    Raises: DataError, naming the image that cannot be read.
    """
    stored = stored_embeddings(pictures, encoder.source, encoder.embedding_dim)
    if stored is not None:
        return _scaled(stored.unsqueeze(1), unit)  # no image is there, so no other view of it
    folder = cache / fingerprint(encoder, pictures, views)
    folder.mkdir(parents=True, exist_ok=True)
    shards = [pictures[i : i + SHARD_IMAGES] for i in range(0, len(pictures), SHARD_IMAGES)]
    files = [folder / f"{number:05d}.safetensors" for number in range(len(shards))]
    with tqdm(total=len(pictures), desc=f"encoding {label}", unit="image") as bar:
        for number, (shard, file) in enumerate(zip(shards, files, strict=True)):
            if not file.exists():
                part = _encode(encoder, shard, views, torch.Generator().manual_seed(number), bar)
                write_weights({"embeddings": part}, file.with_suffix(".part"))
                os.replace(file.with_suffix(".part"), file)
            else:
                bar.update(len(shard))
    whole = folder / ("unit.f32" if unit else "all.f32")
    if not whole.exists():
        _join(files, whole, unit)
    shape = (len(pictures), views, encoder.embedding_dim)
    return torch.from_file(str(whole), shared=False, size=math.prod(shape)).view(shape)


def _join(shards: Sequence[Path], whole: Path, unit: bool) -> None:
    part = whole.with_suffix(".part")
    with part.open("wb") as file:
        for shard in shards:
            file.write(_scaled(load_file(shard)["embeddings"], unit).numpy().data)
    os.replace(part, whole)


def _scaled(embeddings: Tensor, unit: bool) -> Tensor:
    return torch.nn.functional.normalize(embeddings, dim=-1) if unit else embeddings


def any_view(embeddings: Tensor, items: Tensor) -> Tensor:
    """One view of each image, drawn at random.

    Shapes: embeddings `(N, V, D)`, items `(B,)` → `(B, D)`.
    """
    return embeddings[items, torch.randint(embeddings.shape[1], items.shape)]


def read_pixels(encoder: Encoder, pictures: Sequence[Picture]) -> Tensor:
    """Images as the tower sees them: `(B, 3, H, W)`.

    Raises: DataError, naming the image that cannot be read.
    """
    with ThreadPoolExecutor(READING_THREADS) as pool:
        return torch.stack(
            list(pool.map(lambda picture: encoder.preprocess(picture.open()), pictures))
        )


def fingerprint(encoder: Encoder, pictures: Sequence[Picture], views: int) -> str:
    """Changes with the tower, the views, the list of images and the size or time of any."""
    digest = hashlib.sha256(f"{encoder.fingerprint()} {views}".encode())
    for picture in pictures:
        digest.update(f"{picture.stamp()}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


@torch.inference_mode()
def _encode(
    encoder: Encoder,
    pictures: Sequence[Picture],
    views: int,
    generator: torch.Generator,
    bar: tqdm[Any],
) -> Tensor:
    parts = []
    for start in range(0, len(pictures), BATCH_IMAGES):
        pixels = read_pixels(encoder, pictures[start : start + BATCH_IMAGES])
        seen = [pixels, *(augment(pixels, generator) for _ in range(views - 1))]
        parts.append(torch.stack([encoder.encode(view).float().cpu() for view in seen], dim=1))
        bar.update(len(pixels))
    return torch.cat(parts)
