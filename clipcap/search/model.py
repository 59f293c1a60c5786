"""The decoder as a search sees it: a prefix is read once, then one token a step for each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, GPT2LMHeadModel

from clipcap.gpt2 import GPT2
from clipcap.key_values import KeyValues
from clipcap.recorded import RecordedGPT2, RecordedStep

Model = GPT2 | GPT2LMHeadModel
"""Ours, or one of transformers, which may be in training: slower, but never out of date."""


class Reading(Protocol):
    """What has been read so far, for one search."""

    def read_prefix(self, prefix: Tensor) -> Tensor:
        """Shapes: prefix `(B, K, E)` → log-probabilities of the first token `(B, V)`."""

    def step(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Go on from `rows` of the last step with one token each.

        Shapes: rows, tokens `(N,)` → log-probabilities of the next token `(N, V)`.
        """


def begin(model: Model, max_tokens: int, *, beams: bool = False) -> Reading:
    """The last of `max_tokens` is never read. With `beams` each image has as many rows as any
    other at each step, one after the other."""
    if isinstance(model, RecordedGPT2):
        return _RecordedReading(model, max_tokens)
    if isinstance(model, GPT2):
        return _OurReading(model, max_tokens, beams=beams)
    return _TheirReading(model)


class _OurReading:
    def __init__(self, model: GPT2, max_tokens: int, *, beams: bool = False) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._beams = beams

    def read_prefix(self, prefix: Tensor) -> Tensor:
        self._longest = prefix.shape[1] + self._max_tokens - 1
        self._cache = KeyValues(self._model.config, prefix, self._longest, beams=self._beams)
        return self._read(prefix.float())

    def step(self, rows: Tensor, tokens: Tensor) -> Tensor:
        self._cache.select(rows)
        return self._read(self._model.embed(tokens))

    def _read(self, vectors: Tensor) -> Tensor:
        return torch.log_softmax(self._model(vectors, self._cache), dim=-1)


class _RecordedReading(_OurReading):
    """The prefix is read as ever; the steps after it are recorded ones."""

    def __init__(self, model: RecordedGPT2, max_tokens: int) -> None:
        super().__init__(model, max_tokens)
        self._recorded: Callable[..., RecordedStep] = model.recorded
        self._step: RecordedStep | None = None

    def step(self, rows: Tensor, tokens: Tensor) -> Tensor:
        if self._step is None:
            self._step = self._recorded(len(rows), self._longest, rows.device)
            self._step.go_on_from(self._cache.read[:, :, rows])
        else:
            self._step.select(rows)
        return torch.log_softmax(self._step.step(tokens), dim=-1)


class _TheirReading:
    def __init__(self, model: GPT2LMHeadModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)

    def read_prefix(self, prefix: Tensor) -> Tensor:
        return self._forward(None, inputs_embeds=prefix)

    def step(self, rows: Tensor, tokens: Tensor) -> Tensor:
        self._cache.reorder_cache(rows)  # type: ignore[arg-type]  # any integer tensor will do
        return self._forward(tokens[:, None])

    def _forward(self, tokens: Tensor | None, **inputs: Tensor) -> Tensor:
        # The cache by its place: transformers 5.24 gave the argument another name.
        # No logits for the positions of the prefix: only the last says what comes next.
        output = self._model(tokens, self._cache, **inputs, use_cache=True, logits_to_keep=1)
        return torch.log_softmax(output.logits[:, -1].float(), dim=-1)
