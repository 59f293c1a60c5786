"""Random tiny decoders, and what they say without cache or batch."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from clipcap.search import Vocabulary

WIDTH, SIZE, STOP = 16, 11, 3
NEVER = Vocabulary(-1, torch.zeros(SIZE, dtype=torch.bool), torch.zeros(SIZE, dtype=torch.bool))
"""No token ends a caption."""


def vocabulary(size: int = SIZE) -> Vocabulary:
    """Even tokens begin a word."""
    tokens = torch.arange(size)
    return Vocabulary(STOP, stops=tokens == STOP, begins_word=tokens % 2 == 0)


def random_decoder(seed: int, size: int = SIZE) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=size, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32, eos_token_id=STOP
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)  # fresh weights are nearly uniform over the vocabulary
    model.train(False)
    return model


def random_prefix(seed: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, WIDTH, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def log_probabilities_after(model: GPT2LMHeadModel, prefix: Tensor, ids: list[int]) -> Tensor:
    """`(V,)`, with neither cache nor batch."""
    tokens = model.transformer.wte(torch.tensor([ids], dtype=torch.long))
    logits = model(inputs_embeds=torch.cat([prefix[None], tokens], dim=1)).logits
    return torch.log_softmax(logits[0, -1], dim=-1)


def forced_log_probability(model: GPT2LMHeadModel, prefix: Tensor, ids: list[int]) -> float:
    """Of these tokens after this prefix, one pass each."""
    return sum(
        float(log_probabilities_after(model, prefix, ids[:i])[token]) for i, token in enumerate(ids)
    )


def repeats(ids: list[int], n: int) -> bool:
    """Whether any n tokens in a row are there twice."""
    ngrams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return n > 0 and len(set(ngrams)) < len(ngrams)
