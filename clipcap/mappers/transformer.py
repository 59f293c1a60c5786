"""The transformer mapper: K learned vectors read the embedding, and each other, in pre-norm
layers. No mask, no positions, no norm after the last layer, no bias on queries, keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipcap.mappers.config import TransformerConfig

MLP_RATIO = 2


class TransformerMapper(nn.Module):
    """`Linear(D, C·E)` makes C vectors of the embedding, `prefix_const` follows them, and what
    the last K positions have become is the prefix."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.embedding_dim, config.clip_length * config.decoder_dim)
        self.prefix_const = nn.Parameter(torch.randn(config.prefix_length, config.decoder_dim))
        self.transformer = _Layers(config)

    def forward(self, embedding: Tensor) -> Tensor:
        """Shapes: embedding `(B, D)` → prefix `(B, K, E)`."""
        B, C, E = len(embedding), self.config.clip_length, self.config.decoder_dim
        read = self.linear(embedding).view(B, C, E)
        learned = self.prefix_const.expand(B, -1, -1)  # (B, K, E)
        written: Tensor = self.transformer(torch.cat([read, learned], dim=1))  # (B, C+K, E)
        return written[:, C:]


class _Layers(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(config) for _ in range(config.layers)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Layer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.decoder_dim)
        self.attn = _Attention(config.decoder_dim, config.heads)
        self.norm2 = nn.LayerNorm(config.decoder_dim)
        self.mlp = _MLP(config.decoder_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, E = x.shape
        queries = self.to_queries(x).view(B, N, self.heads, -1).transpose(1, 2)
        # Keys are the first half of what to_keys_values gives, each half all heads in turn.
        keys, values = self.to_keys_values(x).view(B, N, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(queries, keys, values)  # (B, H, N, E/H)
        projected: Tensor = self.project(read.transpose(1, 2).reshape(B, N, E))
        return projected


class _MLP(nn.Module):
    """Dropout has no weights and is none until training sets its share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(functional.relu(self.fc1(x)))
        written: Tensor = self.dropout(self.fc2(hidden))
        return written
