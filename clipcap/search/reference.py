"""The beam search of ClipCap's authors, token for token, on a cache and for many images at once.

It differs from textbook beam search: while pruning, beams compete by their mean log-probability,
and stopped beams go on competing, by what they had when they stopped.

Source: `generate_beam` of github.com/rmokady/CLIP_prefix_caption.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipcap.options import DecodingOptions
from clipcap.search.hypothesis import Hypothesis
from clipcap.search.model import Model, begin
from clipcap.search.vocabulary import Vocabulary

FILLER = 0
"""The token that a stopped beam takes at each further step, at no cost, cut off in the end."""


def reference_beam(
    model: Model, prefix: Tensor, vocabulary: Vocabulary, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """All beams of each image, best first. Shapes: prefix `(B, K, E)`."""
    cached, stop_id = begin(model, options.max_tokens, beams=True), vocabulary.stop_id
    width = min(options.beam_size, model.config.vocab_size)
    sums, tokens = cached.read_prefix(prefix).topk(width)  # (B, W)
    lengths = torch.ones_like(sums)
    stopped = tokens == stop_id
    tokens = tokens[..., None]  # (B, W, T)
    rows = torch.arange(len(prefix), device=prefix.device)[:, None].expand(-1, width)
    images = list(range(len(prefix)))  # the image behind each row of the state
    found: list[list[Hypothesis]] = [[] for _ in images]
    while True:
        ready = stopped.all(dim=1)
        if tokens.shape[-1] == options.max_tokens:
            ready = torch.ones_like(ready)
        for row in ready.nonzero().squeeze(1).tolist():
            found[images[row]] = _ranked(tokens[row], sums[row], lengths[row], stopped[row])
        going = ready.logical_not().nonzero().squeeze(1)
        if len(going) == 0:
            return found
        images = [images[row] for row in going.tolist()]
        sums, lengths, stopped, tokens = (
            state[going] for state in (sums, lengths, stopped, tokens)
        )
        log_probabilities = cached.step(rows[going].flatten(), tokens[..., -1].flatten())
        log_probabilities = log_probabilities.view(len(images), width, -1)  # (B, W, V)
        log_probabilities[stopped] = -torch.inf
        log_probabilities[..., FILLER].masked_fill_(stopped, 0)
        lengths = lengths + stopped.logical_not()
        means = (sums[..., None] + log_probabilities) / lengths[..., None]
        best, chosen = means.flatten(1).topk(width)  # (B, W)
        beams, last = chosen // means.shape[-1], chosen % means.shape[-1]
        lengths = lengths.gather(1, beams)
        sums = best * lengths
        stopped = stopped.gather(1, beams) | (last == stop_id)
        history = tokens.gather(1, beams[..., None].expand_as(tokens))
        tokens = torch.cat([history, last[..., None]], dim=-1)
        rows = torch.arange(len(images), device=prefix.device)[:, None] * width + beams


def _ranked(tokens: Tensor, sums: Tensor, lengths: Tensor, stopped: Tensor) -> list[Hypothesis]:
    """Shapes: tokens `(W, T)`, the others `(W,)`."""
    beams = zip(
        tokens.tolist(), lengths.int().tolist(), sums.tolist(), stopped.tolist(), strict=True
    )
    found = [Hypothesis(ids[:length], total, end) for ids, length, total, end in beams]
    return sorted(found, key=lambda hypothesis: -hypothesis.mean_log_probability)
