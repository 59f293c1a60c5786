"""Which items each step of an epoch sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch

SORTED_BATCHES = 16
"""Captions of like length are batched together within a window of this many batches."""


def make_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Every item once, shuffled by seed and epoch, like lengths together to spare padding."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    window = batch_size * SORTED_BATCHES
    batches = []
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda item: lengths[item])
        batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[i] for i in shuffled]


def split_batch(batch: list[int], *, process: int, processes: int, parts: int) -> list[list[int]]:
    """What one process sees of a batch, in parts small enough for its memory."""
    own = batch[process::processes]
    return [part for part in (own[start::parts] for start in range(parts)) if part]
