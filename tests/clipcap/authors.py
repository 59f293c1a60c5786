"""Synthetic checkpoints of the layouts that ClipCap's authors published, small where sizes are
free: names, ranks and ratios are the true ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from clipcap.training.text import train_tokenizer

VOCABULARY, WIDTH, LAYERS, POSITIONS = 280, 128, 2, 96  # 128: two heads of 64 in the decoder
SENTENCES = ["a dog runs on a beach.", "two people sit on a red bench.", "a cat sleeps."]


def build_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = train_tokenizer(SENTENCES, VOCABULARY)
    tokenizer.save_pretrained(folder)
    return tokenizer


def gpt2(*, masks: bool, vocab_size: int = VOCABULARY) -> dict[str, Tensor]:
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=POSITIONS,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    weights = {f"gpt.{key}": weight for key, weight in GPT2LMHeadModel(config).state_dict().items()}
    for layer in range(LAYERS if masks else 0):
        mask = torch.ones(POSITIONS, POSITIONS, dtype=torch.uint8).tril()
        weights[f"gpt.transformer.h.{layer}.attn.bias"] = mask[None, None]
        weights[f"gpt.transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    return weights


def mlp(embedding_dim: int = 512, prefix_length: int = 10) -> dict[str, Tensor]:
    half = WIDTH * prefix_length // 2
    shapes = {
        "model.0.weight": (half, embedding_dim), "model.0.bias": (half,),
        "model.2.weight": (2 * half, half), "model.2.bias": (2 * half,),
    }  # fmt: skip
    return _mapper(shapes)


def linear(embedding_dim: int = 512, prefix_length: int = 40) -> dict[str, Tensor]:
    out = WIDTH * prefix_length
    return _mapper({"weight": (out, embedding_dim), "bias": (out,)})


def transformer(prefix_length: int = 40, clip_length: int = 40) -> dict[str, Tensor]:
    E = WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "linear.weight": (clip_length * E, 640), "linear.bias": (clip_length * E,),
        "prefix_const": (prefix_length, E),
    }  # fmt: skip
    for layer in range(8):
        for name, shape in {
            "norm1.weight": (E,), "norm1.bias": (E,), "norm2.weight": (E,), "norm2.bias": (E,),
            "attn.to_queries.weight": (E, E), "attn.to_keys_values.weight": (2 * E, E),
            "attn.project.weight": (E, E), "attn.project.bias": (E,),
            "mlp.fc1.weight": (2 * E, E), "mlp.fc1.bias": (2 * E,),
            "mlp.fc2.weight": (E, 2 * E), "mlp.fc2.bias": (E,),
        }.items():  # fmt: skip
            shapes[f"transformer.layers.{layer}.{name}"] = shape
    return _mapper(shapes)


def _mapper(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        f"clip_project.{name}": 0.1 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
