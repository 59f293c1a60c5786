"""The decoder as a search sees it: a prefix is read once, then one token a step for each row."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, GPT2LMHeadModel


class CachedModel:
    """A GPT-2 with the keys and values of what it has read so far, for one search."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)

    def read_prefix(self, prefix: Tensor) -> Tensor:
        """Shapes: prefix `(B, K, E)` → log-probabilities of the first token `(B, V)`."""
        return self._forward(inputs_embeds=prefix)

    def step(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Go on from `rows` of the last step with one token each.

        Shapes: rows, tokens `(N,)` → log-probabilities of the next token `(N, V)`.
        """
        self._cache.reorder_cache(rows)  # type: ignore[arg-type]  # any integer tensor will do
        return self._forward(input_ids=tokens[:, None])

    def _forward(self, **inputs: Tensor) -> Tensor:
        # No logits for the positions of the prefix: only the last says what comes next.
        output = self._model(
            **inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        return torch.log_softmax(output.logits[:, -1].float(), dim=-1)
