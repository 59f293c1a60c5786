"""The two things that are trained: a decoder on text alone, and mapper + decoder on images.

Captions are padded on the right and attention is causal, so no real token ever attends to
padding; the loss leaves padding out, and end-of-text is a target like any other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from clipcap.training.captions import IGNORED


class PrefixLanguageModel(nn.Module):
    """Mapper and decoder: the probability of a caption given an embedding."""

    def __init__(self, mapper: nn.Module, decoder: GPT2LMHeadModel) -> None:
        super().__init__()
        self.mapper = mapper
        self.decoder = decoder

    def train(self, mode: bool = True) -> PrefixLanguageModel:
        """A decoder that is not trained gets no dropout either, as in the authors' code."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.decoder.parameters()):
            self.decoder.train(False)
        return self

    def forward(self, embedding: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss in nats per token.

        Shapes: embedding `(B, D)`, targets `(B, T)` padded with IGNORED.
        """
        prefix = self.mapper(embedding)
        return caption_loss(self.decoder, prefix, targets, label_smoothing)


class TextLanguageModel(nn.Module):
    """The decoder alone: the probability of a caption after end-of-text. Positions start where
    they will after a prefix, so that what is learned of them holds later."""

    def __init__(self, decoder: GPT2LMHeadModel, prefix_length: int, end_of_text_id: int) -> None:
        super().__init__()
        self.decoder = decoder
        self._first_position = prefix_length - 1
        self._end_of_text_id = end_of_text_id

    def forward(self, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        start = torch.full((len(targets), 1), self._end_of_text_id, device=targets.device)
        prefix = self.decoder.transformer.wte(start)
        return caption_loss(
            self.decoder, prefix, targets, label_smoothing, first_position=self._first_position
        )


def caption_loss(
    decoder: GPT2LMHeadModel,
    prefix: Tensor,
    targets: Tensor,
    label_smoothing: float,
    *,
    first_position: int = 0,
) -> Tensor:
    """Mean cross-entropy of targets after a prefix, in nats per token.

    Shapes: prefix `(B, K, E)`, targets `(B, T)` padded with IGNORED.
    """
    logits = _logits(decoder, prefix, targets, first_position)
    return nn.functional.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
    )


def token_log_probabilities(decoder: GPT2LMHeadModel, prefix: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each target token, 0 at padding: `(B, T)`.

    Shapes: prefix `(B, K, E)`, targets `(B, T)` padded with IGNORED.
    """
    logits = _logits(decoder, prefix, targets, first_position=0)
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -losses.view_as(targets)


def _logits(
    decoder: GPT2LMHeadModel, prefix: Tensor, targets: Tensor, first_position: int
) -> Tensor:
    """`(B, T, V)`. The last prefix vector predicts the first token, and no logits are computed
    for the vectors before it."""
    read = targets[:, :-1].clamp_min(0)  # padding reads as token 0 and is never attended to
    inputs = torch.cat([prefix, decoder.transformer.wte(read)], dim=1)  # (B, K+T-1, E)
    positions = torch.arange(first_position, first_position + inputs.shape[1]).unsqueeze(0)
    hidden = decoder.transformer(
        inputs_embeds=inputs, position_ids=positions.to(inputs.device), use_cache=False
    ).last_hidden_state[:, prefix.shape[1] - 1 :]  # (B, T, E)
    logits: Tensor = decoder.lm_head(hidden)
    return logits
