"""Search for captions: greedy, beam and nucleus, over a batch of prefixes at once.

All candidates of all images advance together, one forward pass of the decoder a step, on a
key/value cache that was filled from each prefix once. An image that has finished leaves the
batch. All prefixes have the same length, so nothing is padded and a caption does not depend
on what else is in its batch.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from clipcap.options import DecodingOptions
from clipcap.search.hypothesis import Hypothesis, ended_first
from clipcap.search.model import Model, begin
from clipcap.search.reference import reference_beam
from clipcap.search.sequential import greedy, nucleus, spread
from clipcap.search.standard import standard_beam
from clipcap.search.vocabulary import Vocabulary

__all__ = ["Hypothesis", "Model", "Vocabulary", "begin", "draw", "ended_first", "search"]

DRAWN_TOGETHER = 8
"""Images: each has many rows, and more of them leave the processor's caches."""


def search(
    model: Model, prefix: Tensor, vocabulary: Vocabulary, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """All candidates for each prefix, best first: one of greedy search, `beam_size` of beam
    search, `num_captions` of nucleus sampling. They are no longer than the decoder has
    positions for.

    Shapes: prefix `(B, K, E)`.
    """
    options = _with_room(options, model, prefix)
    vocabulary = vocabulary.to(prefix.device)
    with torch.inference_mode():
        if options.method == "beam":
            rule = reference_beam if options.beam_rule == "reference" else standard_beam
            return rule(model, prefix, vocabulary, options)
        grow = greedy if options.method == "greedy" else nucleus
        found = grow(model, prefix, vocabulary, options)
        if options.max_words is not None:
            _replace_long_ones(found, options.max_words, model, prefix, vocabulary, options)
        return found


def draw(
    model: Model, prefix: Tensor, vocabulary: Vocabulary, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """`consensus_draws` captions for each prefix that stand for all that the decoder might say.

    Shapes: prefix `(B, K, E)`.
    """
    options = _with_room(options, model, prefix)
    vocabulary = vocabulary.to(prefix.device)
    with torch.inference_mode():
        return [
            drawn
            for part in torch.split(prefix, DRAWN_TOGETHER)
            for drawn in spread(model, part, vocabulary, options)
        ]


def _with_room(options: DecodingOptions, model: Model, prefix: Tensor) -> DecodingOptions:
    room = model.config.n_positions - prefix.shape[1] + 1  # the last token is not read again
    return replace(options, max_tokens=min(options.max_tokens, room))


def _replace_long_ones(
    found: list[list[Hypothesis]],
    max_words: int,
    model: Model,
    prefix: Tensor,
    vocabulary: Vocabulary,
    options: DecodingOptions,
) -> None:
    """A candidate that says more than `max_words` gives way to one of beam search, which can
    plan for the limit: cutting it off would leave half a sentence."""
    kept = [[one for one in ones if vocabulary.within(one, max_words)] for ones in found]
    short = [image for image, ones in enumerate(found) if len(kept[image]) < len(ones)]
    if not short:
        return
    width = max(options.beam_size, options.num_captions)
    shorter = standard_beam(model, prefix[short], vocabulary, replace(options, beam_size=width))
    for image, others in zip(short, shorter, strict=True):
        apart = {tuple(one.token_ids): one for one in [*kept[image], *others]}
        chosen = list(apart.values())[: options.num_captions]
        found[image] = sorted(chosen, key=lambda one: (not one.ended, -one.mean_log_probability))
