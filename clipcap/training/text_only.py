"""Learning to caption images from captions alone: each caption is told from its own embedding,
with noise that covers the distance between CLIP's texts and images.

Source: Nukrai, Mokady, Globerson, "Text-Only Training for Image Captioning using Noise-Injected
CLIP" (CapDec), arXiv 2211.00575.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from clipcap.clip_score import TextSide
from clipcap.encoder import Encoder
from clipcap.errors import TrainingError

BATCH_TEXTS = 256


@torch.inference_mode()
def embed_captions(encoder: Encoder, captions: Sequence[str]) -> Tensor:
    """Embeddings of unit length: `(N, D)`.

    Raises: BundleError, TrainingError where the encoder has no text side.
    """
    text = text_side(encoder)
    parts = []
    with tqdm(total=len(captions), desc="encoding captions", unit="caption") as bar:
        for start in range(0, len(captions), BATCH_TEXTS):
            batch = list(captions[start : start + BATCH_TEXTS])
            parts.append(text.encode(batch).float().cpu())
            bar.update(len(batch))
    return torch.cat(parts)


def text_side(encoder: Encoder) -> TextSide:
    """Raises: TrainingError where the encoder has none."""
    if encoder.text is None:
        raise TrainingError("the encoder has no text side to learn from; name a CLIP model")
    return encoder.text


def with_noise(embedding: Tensor, variance: float) -> Tensor:
    """Shapes: embedding, noisy `(B, D)`, both of unit length."""
    noise = torch.randn(embedding.shape) * math.sqrt(variance)
    return torch.nn.functional.normalize(embedding + noise, dim=-1)
