"""What must not come next, whatever the decoder thinks of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clipcap.search.vocabulary import Vocabulary

LIKELY = math.log(0.02)
"""After a whole sentence all stop tokens together are, after "a dog on a" they are far from it."""


def without_repeats(log_probabilities: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Forbid what would make n tokens in a row appear a second time; 0 forbids nothing.

    Shapes: log_probabilities `(N, V)`, tokens so far `(N, T)` → `(N, V)`.
    """
    longest = tokens.shape[1]
    if n == 0 or longest < n:
        return log_probabilities
    ngrams = tokens.unfold(1, n, 1)  # (N, T - n + 1, n)
    begun = (ngrams[..., :-1] == tokens[:, None, longest - n + 1 :]).all(dim=-1)
    penalty = torch.zeros_like(begun, dtype=log_probabilities.dtype)
    penalty.masked_fill_(begun, -torch.inf)
    return log_probabilities.scatter_add(1, ngrams[..., -1], penalty)


def within_words(
    log_probabilities: Tensor, tokens: Tensor, vocabulary: Vocabulary, max_words: int | None
) -> Tensor:
    """Once there are `max_words` words, forbid another: the last may only go on, where that is
    likely, or the caption end. What is unlikely glues something to a word that is whole.

    Shapes: as for `without_repeats`.
    """
    if max_words is None or tokens.shape[1] == 0:
        return log_probabilities
    full = vocabulary.words(tokens) >= max_words
    glued = (log_probabilities < LIKELY) & ~vocabulary.stops
    forbidden = vocabulary.begins_word | glued
    return log_probabilities.masked_fill(full[:, None] & forbidden, -torch.inf)
