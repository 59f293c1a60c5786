"""Greedy search and nucleus sampling: each candidate grows by one token a step, on its own.

Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv 1904.09751.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clipcap.options import DecodingOptions
from clipcap.search.constraints import without_repeats
from clipcap.search.hypothesis import Hypothesis
from clipcap.search.model import Model, begin
from clipcap.search.vocabulary import Vocabulary

Pick = Callable[[Tensor, Tensor], Tensor]
"""Chooses a token `(N,)` for each row, given log-probabilities `(N, V)` and random numbers `(N,)`
from 0 to 1."""


def greedy(
    model: Model, prefix: Tensor, vocabulary: Vocabulary, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """The likeliest token, each time."""
    unused = torch.zeros(options.max_tokens, 1)
    return _grow(model, prefix, vocabulary, options, unused, lambda found, _: found.argmax(dim=1))


def nucleus(
    model: Model, prefix: Tensor, vocabulary: Vocabulary, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Draw tokens from the fewest that hold `top_p` of the probability. Best first, by mean.

    Every image is given the same random numbers, so a caption depends on its prefix and the
    seed alone, not on what else is in the batch.
    """
    generator = torch.Generator().manual_seed(options.seed)
    shape = (options.max_tokens, options.num_captions)
    numbers = torch.rand(shape, generator=generator, dtype=torch.float64)

    def pick(log_probabilities: Tensor, number: Tensor) -> Tensor:
        return draw(log_probabilities / options.temperature, number, options.top_p)

    found = _grow(model, prefix, vocabulary, options, numbers, pick)
    return [sorted(ones, key=lambda one: -one.mean_log_probability) for ones in found]


def draw(logits: Tensor, number: Tensor, top_p: float) -> Tensor:
    """The token at which the cumulated probability of the nucleus passes `number`.

    Shapes: logits `(N, V)`, number `(N,)` from 0 to 1 → tokens `(N,)`.
    """
    probabilities, order = logits.softmax(dim=1).sort(dim=1, descending=True, stable=True)
    before = probabilities.cumsum(dim=1) - probabilities
    nucleus = probabilities.masked_fill(before >= top_p, 0)
    mass = nucleus.double().cumsum(dim=1)
    place = (mass <= number[:, None] * mass[:, -1:]).sum(dim=1, keepdim=True)
    return order.gather(1, place).squeeze(1)


def _grow(
    model: Model,
    prefix: Tensor,
    vocabulary: Vocabulary,
    options: DecodingOptions,
    numbers: Tensor,
    pick: Pick,
) -> list[list[Hypothesis]]:
    """Shapes: prefix `(B, K, E)`, numbers `(max_tokens, candidates)`."""
    images, candidates = len(prefix), numbers.shape[1]
    device = prefix.device
    numbers = numbers.to(device).repeat(1, images)  # (max_tokens, B·candidates)
    tokens = torch.zeros(images * candidates, options.max_tokens, dtype=torch.long, device=device)
    sums = torch.zeros(images * candidates, device=device)
    running = torch.arange(len(tokens), device=device)  # the candidate in each row
    origin = torch.arange(images, device=device).repeat_interleave(candidates)  # in the cache
    cached = begin(model, options.max_tokens)
    log_probabilities = cached.read_prefix(prefix)[origin]
    for length in range(options.max_tokens):
        so_far = tokens[running, :length]
        allowed = without_repeats(log_probabilities, so_far, options.no_repeat_ngram)
        chosen = pick(allowed, numbers[length, running])
        tokens[running, length] = chosen
        sums[running] += log_probabilities.gather(1, chosen[:, None]).squeeze(1)
        rows = vocabulary.stops[chosen].logical_not().nonzero().squeeze(1)
        if len(rows) == 0 or length + 1 == options.max_tokens:
            break
        running = running[rows]
        log_probabilities = cached.step(origin[rows], chosen[rows])
        origin = torch.arange(len(rows), device=device)
    found = _present(tokens, sums, vocabulary)
    return [found[i : i + candidates] for i in range(0, len(found), candidates)]


def _present(tokens: Tensor, sums: Tensor, vocabulary: Vocabulary) -> list[Hypothesis]:
    """Shapes: tokens `(N, T)`, sums `(N,)`."""
    stops = vocabulary.stops[tokens]
    ended = stops.any(dim=1)
    lengths = torch.where(ended, stops.int().argmax(dim=1) + 1, tokens.shape[1])
    rows = zip(tokens.tolist(), lengths.tolist(), sums.tolist(), ended.tolist(), strict=True)
    return [Hypothesis(ids[:length], total, end) for ids, length, total, end in rows]
