"""The mappers without attention: one hidden layer, or none."""

from __future__ import annotations

from torch import Tensor, nn

from clipcap.mappers.config import LinearConfig, MLPConfig


class MLPMapper(nn.Module):
    """`Linear(D, E·K/2)` → Tanh → `Linear(E·K/2, E·K)`, reshaped to K vectors.

    Dropout is ours: it has no weights and is none until training sets its share.
    """

    def __init__(self, config: MLPConfig) -> None:
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


class LinearMapper(nn.Linear):
    """One `Linear(D, E·K)`, reshaped to K vectors: what the authors' predict.py builds for K > 10.

    A Linear itself, since its weights are named `weight` and `bias` there.
    """

    def __init__(self, config: LinearConfig) -> None:
        super().__init__(config.embedding_dim, config.prefix_length * config.decoder_dim)
        self.config = config

    def forward(self, embedding: Tensor) -> Tensor:
        """Shapes: embedding `(B, D)` → prefix `(B, K, E)`."""
        prefix = super().forward(embedding)  # (B, K·E)
        return prefix.view(-1, self.config.prefix_length, self.config.decoder_dim)
