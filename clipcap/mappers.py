"""Mappers: from a CLIP embedding `(B, D)` to a prefix of decoder embeddings `(B, K, E)`.

Source: Mokady, Hertz, Bermano, "ClipCap: CLIP Prefix for Image Captioning", arXiv 2111.09734.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn


class MapperConfig(BaseModel):
    """What a mapper's shapes follow from: D embedding_dim, K prefix_length, E decoder_dim."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mlp"]
    embedding_dim: PositiveInt
    prefix_length: PositiveInt
    decoder_dim: PositiveInt


class MLPMapper(nn.Module):
    """`Linear(D, E·K/2)` → Tanh → `Linear(E·K/2, E·K)`, reshaped to K vectors.

    The names `model.0` and `model.2` are those of the authors' checkpoints. Dropout is ours: it
    has no weights and is none until training sets its share.
    """

    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_dim * config.prefix_length
        self.model = nn.ModuleList(
            [nn.Linear(config.embedding_dim, width // 2), nn.Tanh(), nn.Linear(width // 2, width)]
        )
        self.dropout = nn.Dropout(0.0)

    def forward(self, embedding: Tensor) -> Tensor:
        """Shapes: embedding `(B, D)` → prefix `(B, K, E)`."""
        first, tanh, second = self.model
        hidden = self.dropout(tanh(first(embedding)))
        prefix: Tensor = second(hidden)  # (B, K·E)
        return prefix.view(-1, self.config.prefix_length, self.config.decoder_dim)


def build_mapper(config: MapperConfig) -> MLPMapper:
    return MLPMapper(config)
