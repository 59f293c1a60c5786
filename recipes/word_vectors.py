"""Vectors of words from the words that stand near them in captions: what a text side begins
with when there are too few captions of images to learn words from.

Source: Levy, Goldberg, Dagan, "Improving Distributional Similarity with Lessons Learned from
Word Embeddings", TACL 2015: positive pointwise mutual information, contexts smoothed, and a
truncated singular value decomposition.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 5
RAREST = 2
SMOOTHING = 0.75


def word_vectors(tokens: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The ids of the words that occur often enough, and their vectors, of deviation 1.

    Shapes: tokens `(N, T)`, one text a row, padded with 0 → ids `(V,)`, vectors `(V, width)`.
    """
    counts = torch.bincount(tokens.flatten())
    ids = ((counts >= RAREST) & (torch.arange(len(counts)) > 0)).nonzero().squeeze(1)
    rows = torch.full((len(counts),), -1)
    rows[ids] = torch.arange(len(ids))
    near = _counted_together(rows[tokens], len(ids))
    contexts = near.sum(dim=0) ** SMOOTHING
    expected = near.sum(dim=1, keepdim=True) * (contexts / contexts.sum())
    information = (near / expected.clamp(min=1e-9)).clamp(min=1).log()
    directions, strengths, _ = torch.svd_lowrank(information, q=width, niter=2)
    vectors = directions * strengths.sqrt()
    return ids, vectors / vectors.std()


def _counted_together(rows: Tensor, words: int) -> Tensor:
    """How often two words stand within NEAR of each other: `(words, words)`, symmetric."""
    near = torch.zeros(words * words)
    for distance in range(1, NEAR + 1):
        first, second = rows[:, :-distance].flatten(), rows[:, distance:].flatten()
        both = (first >= 0) & (second >= 0)
        pairs = first[both] * words + second[both]
        near.index_add_(0, pairs, torch.ones(len(pairs)))
    near = near.view(words, words)
    return near + near.T
