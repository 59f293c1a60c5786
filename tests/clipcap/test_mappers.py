"""Each mapper against a plain loop written from its description, for any width."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from clipcap.mappers import (
    LinearConfig,
    MapperConfig,
    MLPConfig,
    TransformerConfig,
    build_mapper,
)


def normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5) * weight + bias


def plain_attention(
    x: list[Tensor], weights: dict[str, Tensor], at: str, heads: int
) -> list[Tensor]:
    width = len(x[0])
    size = width // heads
    queries = [weights[f"{at}to_queries.weight"] @ each for each in x]
    both = [weights[f"{at}to_keys_values.weight"] @ each for each in x]
    out = []
    for query in queries:
        read = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            after = slice(width + head * size, width + (head + 1) * size)
            scores = torch.stack([query[part] @ kv[part] / math.sqrt(size) for kv in both])
            shares = scores.exp() / scores.exp().sum()
            read.append(sum(share * kv[after] for share, kv in zip(shares, both, strict=True)))
        joined = torch.cat(read)
        out.append(weights[f"{at}project.weight"] @ joined + weights[f"{at}project.bias"])
    return out


def plain_transformer(
    embedding: Tensor, weights: dict[str, Tensor], config: TransformerConfig
) -> Tensor:
    """One embedding, one vector at a time."""
    first = weights["linear.weight"] @ embedding + weights["linear.bias"]
    x = [*first.split(config.decoder_dim), *weights["prefix_const"]]
    for layer in range(config.layers):
        at = f"transformer.layers.{layer}."

        def norm(each: Tensor, which: str, at: str = at) -> Tensor:
            return normed(each, weights[f"{at}{which}.weight"], weights[f"{at}{which}.bias"])

        read = plain_attention([norm(e, "norm1") for e in x], weights, f"{at}attn.", config.heads)
        x = [each + more for each, more in zip(x, read, strict=True)]
        for index, each in enumerate(x):
            hidden = weights[f"{at}mlp.fc1.weight"] @ norm(each, "norm2")
            hidden = (hidden + weights[f"{at}mlp.fc1.bias"]).clamp_min(0)
            x[index] = each + weights[f"{at}mlp.fc2.weight"] @ hidden + weights[f"{at}mlp.fc2.bias"]
    return torch.stack(x[-config.prefix_length :])


def plain(embedding: Tensor, weights: dict[str, Tensor], config: MapperConfig) -> Tensor:
    if isinstance(config, TransformerConfig):
        return plain_transformer(embedding, weights, config)
    if isinstance(config, MLPConfig):
        hidden = torch.tanh(weights["model.0.weight"] @ embedding + weights["model.0.bias"])
        flat = weights["model.2.weight"] @ hidden + weights["model.2.bias"]
    else:
        flat = weights["weight"] @ embedding + weights["bias"]
    return flat.view(config.prefix_length, config.decoder_dim)


@pytest.mark.parametrize(
    "config",
    [
        MLPConfig(embedding_dim=6, prefix_length=3, decoder_dim=8),
        MLPConfig(embedding_dim=5, prefix_length=1, decoder_dim=7),
        LinearConfig(embedding_dim=6, prefix_length=12, decoder_dim=8),
        TransformerConfig(
            embedding_dim=6, prefix_length=3, decoder_dim=8, clip_length=2, layers=2, heads=2
        ),
        TransformerConfig(
            embedding_dim=10, prefix_length=2, decoder_dim=24, clip_length=5, layers=3, heads=8
        ),
    ],
)
def test_it_equals_a_plain_loop(config: MapperConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    mapper = build_mapper(config)
    for parameter in mapper.parameters():  # fresh norms are ones and zeros, which hide mistakes
        nn.init.normal_(parameter, std=0.5, generator=generator)
    embeddings = torch.randn(4, config.embedding_dim, generator=generator)

    with torch.inference_mode():
        prefix = mapper(embeddings)
        one_by_one = [plain(each, mapper.state_dict(), config) for each in embeddings]

    assert prefix.shape == (4, config.prefix_length, config.decoder_dim)
    torch.testing.assert_close(prefix, torch.stack(one_by_one), rtol=1e-4, atol=1e-4)


def test_names_and_shapes_are_those_of_the_published_transformer() -> None:
    config = TransformerConfig(embedding_dim=640, prefix_length=40, decoder_dim=768, clip_length=40)
    with torch.device("meta"):
        shapes = {key: tuple(w.shape) for key, w in build_mapper(config).state_dict().items()}

    layer = {
        "norm1.weight": (768,), "norm1.bias": (768,),
        "norm2.weight": (768,), "norm2.bias": (768,),
        "attn.to_queries.weight": (768, 768), "attn.to_keys_values.weight": (1536, 768),
        "attn.project.weight": (768, 768), "attn.project.bias": (768,),
        "mlp.fc1.weight": (1536, 768), "mlp.fc1.bias": (1536,),
        "mlp.fc2.weight": (768, 1536), "mlp.fc2.bias": (768,),
    }  # fmt: skip
    expected = {"linear.weight": (30720, 640), "linear.bias": (30720,), "prefix_const": (40, 768)}
    for index in range(8):
        expected |= {f"transformer.layers.{index}.{key}": shape for key, shape in layer.items()}
    assert shapes == expected


def test_names_and_shapes_are_those_of_the_published_mlp() -> None:
    config = MLPConfig(embedding_dim=512, prefix_length=10, decoder_dim=768)
    with torch.device("meta"):
        shapes = {key: tuple(w.shape) for key, w in build_mapper(config).state_dict().items()}
    assert shapes == {
        "model.0.weight": (3840, 512), "model.0.bias": (3840,),
        "model.2.weight": (7680, 3840), "model.2.bias": (7680,),
    }  # fmt: skip


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="multiple of heads, 5"):
        TransformerConfig(
            embedding_dim=6, prefix_length=2, decoder_dim=8, clip_length=2, layers=1, heads=5
        )
