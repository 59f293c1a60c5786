"""Embeddings standardised for a mapper while it learns: an embedding's numbers are small and of
very different spread, which slows its first layer down. Afterwards that layer does it itself.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from clipcap.mappers import LinearMapper, Mapper, MLPMapper, TransformerMapper


class StandardizedMapper(nn.Module):
    """A mapper that is given every direction of the embedding with mean 0 and deviation 1.

    `mean` and `deviation` are those of the embeddings `(N, V, D)` it is to learn from. Directions
    that hardly vary are only centred. A mapper that has `learned` before goes on with what it
    knows: it maps as it did.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mapper: Mapper, embeddings: Tensor, *, learned: bool) -> None:
        super().__init__()
        self.mapper = mapper
        flat = embeddings.flatten(0, -2)
        deviation = flat.std(dim=0, correction=0)
        varies = deviation > deviation.mean() / 100
        self.register_buffer("mean", flat.mean(dim=0))
        self.register_buffer("deviation", torch.where(varies, deviation, 1.0))
        if learned:
            _rescale(_first_layer(mapper), -self.mean / self.deviation, 1 / self.deviation)

    def forward(self, embedding: Tensor) -> Tensor:
        """Shapes: embedding `(B, D)` → prefix `(B, K, E)`."""
        prefix: Tensor = self.mapper((embedding - self.mean) / self.deviation)
        return prefix

    def merged(self) -> Mapper:
        """The mapper alone, which now maps embeddings as they are; this one is spent."""
        _rescale(_first_layer(self.mapper), self.mean, self.deviation)
        return self.mapper


@torch.no_grad()
def _rescale(layer: nn.Linear, mean: Tensor, deviation: Tensor) -> None:
    """From a layer that reads `(x - mean) / deviation` to the one that gives the same for x."""
    layer.weight.div_(deviation)
    layer.bias.sub_(layer.weight @ mean)


def _first_layer(mapper: Mapper) -> nn.Linear:
    match mapper:
        case MLPMapper():
            return cast(nn.Linear, mapper.model[0])
        case LinearMapper():
            return mapper
        case TransformerMapper():
            return mapper.linear
