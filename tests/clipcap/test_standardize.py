"""Embeddings standardised while a mapper learns, and the mapper that no longer needs it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipcap.mappers import (
    LinearConfig,
    MapperConfig,
    MLPConfig,
    TransformerConfig,
    build_mapper,
)
from clipcap.training.standardize import StandardizedMapper

SIZES = {"embedding_dim": 12, "prefix_length": 3, "decoder_dim": 8}
CONFIGS = [
    MLPConfig(**SIZES),
    LinearConfig(**SIZES),
    TransformerConfig(**SIZES, clip_length=2, layers=1, heads=2),
]
each_mapper = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)


def embeddings(images: int = 50, views: int = 2) -> Tensor:
    """Of unit length, as most are, with directions far from zero."""
    drawn = torch.randn(images, views, 12, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(0.3 * drawn + torch.arange(12.0), dim=-1)


@each_mapper
def test_merged_mapper_maps_as_the_standardised_one(config: MapperConfig) -> None:
    seen = embeddings()
    mapper = StandardizedMapper(build_mapper(config), seen, learned=False)
    before = mapper(seen[:, 0])
    after = mapper.merged()(seen[:, 0])
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


@each_mapper
def test_mapper_that_has_learned_goes_on_as_it_was(config: MapperConfig) -> None:
    seen = embeddings()
    mapper = build_mapper(config)
    before = mapper(seen[:, 0])
    standardized = StandardizedMapper(mapper, seen, learned=True)
    torch.testing.assert_close(standardized(seen[:, 0]), before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(standardized.merged()(seen[:, 0]), before, rtol=1e-3, atol=1e-4)


def test_every_direction_has_mean_0_and_deviation_1() -> None:
    seen = embeddings()
    mapper = StandardizedMapper(build_mapper(CONFIGS[1]), seen, learned=False)
    given = ((seen - mapper.mean) / mapper.deviation).flatten(0, 1)
    torch.testing.assert_close(given.mean(dim=0), torch.zeros(12), rtol=0, atol=1e-3)
    torch.testing.assert_close(given.std(dim=0, correction=0), torch.ones(12), rtol=0, atol=1e-3)


@pytest.mark.parametrize("images", [1, 50])
def test_direction_that_never_varies_is_not_blown_up(images: int) -> None:
    seen = embeddings(images, views=1)
    seen[..., 3] = 0.5
    mapper = StandardizedMapper(build_mapper(CONFIGS[0]), seen, learned=False)
    assert mapper.deviation[3] == 1
    other = seen[:, 0] + torch.eye(12)[3] * 0.01
    torch.testing.assert_close(mapper(other), mapper(seen[:, 0]), rtol=0, atol=0.1)
