"""Greedy search, and two ways to draw: each candidate grows by one token a step, on its own.

Sources: nucleus: Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv 1904.09751;
evenly spread, as in Vilnis et al., "Arithmetic Sampling", arXiv 2210.15458.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clipcap.largest import largest
from clipcap.options import DecodingOptions
from clipcap.search.constraints import without_repeats
from clipcap.search.hypothesis import Hypothesis
from clipcap.search.model import Model, begin
from clipcap.search.vocabulary import Vocabulary

Pick = Callable[[Tensor, int, Tensor], Tensor]
"""Chooses a token `(N,)` for each row, given log-probabilities `(N, V)`, how many tokens there are
already, and whose row each is, `(N,)`: the candidates of all images are numbered through."""

LEFT_IN = 0.25
"""The share of rows that may go on after their end: to let go of them moves all that was read."""

SPREAD_TEMPERATURE = 0.85
SPREAD_AMONG = 64
"""So many of the likeliest tokens."""


def greedy(
    model: Model, prefix: Tensor, vocabulary: Vocabulary, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """The likeliest token, each time."""
    return _grow(model, prefix, vocabulary, options, 1, lambda found, _, __: found.argmax(dim=1))


def nucleus(
    model: Model, prefix: Tensor, vocabulary: Vocabulary, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Draw tokens from the fewest that hold `top_p` of the probability. Best first, by mean.

    Every image is given the same random numbers, so a caption depends on its prefix and the
    seed alone, not on what else is in the batch.
    """
    generator = torch.Generator().manual_seed(options.seed)
    shape = (options.max_tokens, options.num_captions)
    numbers = torch.rand(shape, generator=generator, dtype=torch.float64).to(prefix.device)

    def pick(log_probabilities: Tensor, length: int, running: Tensor) -> Tensor:
        number = numbers[length, running % options.num_captions]
        return draw_token(log_probabilities / options.temperature, number, options.top_p)

    found = _grow(model, prefix, vocabulary, options, options.num_captions, pick)
    return [sorted(ones, key=lambda one: -one.mean_log_probability) for ones in found]


def spread(
    model: Model, prefix: Tensor, vocabulary: Vocabulary, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Draw `consensus_draws` captions that stand for what the decoder believes: each token by its
    probability, but those after one beginning spread evenly over what there is to draw. Fewer of
    them say as much as if each were drawn alone.

    As in nucleus sampling, a caption depends on its prefix and the seed alone.
    """
    count, device = options.consensus_draws, prefix.device
    generator = torch.Generator().manual_seed(options.seed)
    numbers = torch.rand(options.max_tokens, count, generator=generator).double().to(device)
    begun = torch.arange(len(prefix), device=device).repeat_interleave(count)
    """The same number for captions that have begun alike: they stand side by side."""

    def pick(log_probabilities: Tensor, length: int, running: Tensor) -> Tensor:
        alike, counts = _in_turn(begun[running])
        first = counts.cumsum(0) - counts
        place = torch.arange(len(running), device=device) - first[alike]
        number = (place + numbers[length, running[first] % count][alike]) / counts[alike]
        likeliest, tokens = largest(log_probabilities, SPREAD_AMONG)
        upper = (likeliest.double() / SPREAD_TEMPERATURE).softmax(dim=1).cumsum(dim=1)
        passed = (upper <= number[:, None] * upper[:, -1:]).sum(dim=1, keepdim=True)
        chosen = tokens.gather(1, passed.clamp(max=tokens.shape[1] - 1)).squeeze(1)
        begun[running], _ = _in_turn(alike * log_probabilities.shape[1] + chosen)
        return chosen

    return _grow(model, prefix, vocabulary, options, count, pick)


def _in_turn(values: Tensor) -> tuple[Tensor, Tensor]:
    """For each place how many others have stood before it, equal neighbours being one, and how
    often each of those stands there. Shapes: values `(N,)`."""
    _, number, counts = torch.unique_consecutive(values, return_inverse=True, return_counts=True)
    return number, counts


def draw_token(logits: Tensor, number: Tensor, top_p: float) -> Tensor:
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
    candidates: int,
    pick: Pick,
) -> list[list[Hypothesis]]:
    """So many candidates for each image. Shapes: prefix `(B, K, E)`."""
    images = len(prefix)
    device = prefix.device
    tokens = torch.zeros(images * candidates, options.max_tokens, dtype=torch.long, device=device)
    sums = torch.zeros(images * candidates, device=device)
    running = torch.arange(len(tokens), device=device)  # the candidate in each row
    origin = torch.arange(images, device=device).repeat_interleave(candidates)  # in the cache
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=device)  # of those in the rows
    cached = begin(model, options.max_tokens)
    log_probabilities = cached.read_prefix(prefix)[origin]
    for length in range(options.max_tokens):
        so_far = tokens[running, :length]
        allowed = without_repeats(log_probabilities, so_far, options.no_repeat_ngram)
        chosen = pick(allowed, length, running)
        tokens[running, length] = chosen
        taken = log_probabilities.gather(1, chosen[:, None]).squeeze(1)
        sums[running] += taken.masked_fill(ended, 0)
        ended = ended | vocabulary.stops[chosen]
        done = int(ended.sum())
        if done == len(ended) or length + 1 == options.max_tokens:
            break
        if done >= LEFT_IN * len(ended):
            rows = ended.logical_not().nonzero().squeeze(1)
            running, origin, chosen, ended = running[rows], origin[rows], chosen[rows], ended[rows]
        log_probabilities = cached.step(origin, chosen)
        origin = torch.arange(len(origin), device=device)
    found = _present(tokens, sums, vocabulary)
    return [found[i : i + candidates] for i in range(0, len(found), candidates)]


def _present(tokens: Tensor, sums: Tensor, vocabulary: Vocabulary) -> list[Hypothesis]:
    """Shapes: tokens `(N, T)`, sums `(N,)`."""
    stops = vocabulary.stops[tokens]
    ended = stops.any(dim=1)
    lengths = torch.where(ended, stops.int().argmax(dim=1) + 1, tokens.shape[1])
    rows = zip(tokens.tolist(), lengths.tolist(), sums.tolist(), ended.tolist(), strict=True)
    return [Hypothesis(ids[:length], total, end) for ids, length, total, end in rows]
