"""How well a caption fits its photograph, as the two halves of a CLIP model see it.

Source: Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning",
arXiv 2104.08718. It is biased where the same CLIP has chosen among the captions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from clipcap.errors import BundleError

PROMPT = "A photo depicts "
SCALE = 2.5
BYTES = 256


class TextSide:
    """The text half of an open_clip model. `name` is what open_clip finds its tokenizer by."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self._model: Any = model
        self._name = name

    def to(self, device: torch.device) -> None:
        self._model.to(device)

    def score(self, embedding: Tensor, captions: list[str]) -> list[float]:
        """CLIPScore, from 0 to 2.5, of a caption for each image.

        Shapes: embedding `(N, D)`, normalised or not; N captions.
        Raises: BundleError where the tokenizer cannot be had.
        """
        found = self.encode([PROMPT + caption for caption in captions])
        cosine = (nn.functional.normalize(embedding, dim=-1) * found).sum(dim=-1)
        scores: list[float] = (SCALE * cosine.clamp(min=0)).tolist()
        return scores

    def encode(self, texts: list[str]) -> Tensor:
        """Embeddings of unit length: `(N, D)`. Raises: BundleError, as above."""
        tokens = self._tokenizer(texts)
        device = next(self._model.parameters()).device
        embedding: Tensor = self._model.encode_text(tokens.to(device), normalize=True)
        return embedding

    @cached_property
    def _tokenizer(self) -> Callable[[list[str]], Tensor]:
        try:
            tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(self._name)
        except Exception as error:  # some come from the hub, which fails in its own ways
            raise BundleError(f"the tokenizer of {self._name} cannot be had: {error}") from error
        return tokenizer


def text_side(model: nn.Module, name: str) -> TextSide | None:
    """The text side of a model, or None where it has none to speak of: a vocabulary smaller
    than the number of bytes is a stand-in that open_clip's format asks for."""
    embedding = getattr(getattr(model, "text", model), "token_embedding", None)
    if embedding is not None and embedding.num_embeddings < BYTES:
        return None
    return TextSide(model, name)
