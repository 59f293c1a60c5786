"""Nucleus sampling: really drawn, from the nucleus alone, and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from clipcap import DecodingOptions
from clipcap.search import search
from clipcap.search.sequential import draw_token
from tests.clipcap.decoders import (
    forced_log_probability,
    random_decoder,
    random_prefix,
    vocabulary,
)

OPTIONS = DecodingOptions("nucleus", num_captions=4, max_tokens=10, seed=7, top_p=0.95)


def test_the_same_seed_gives_the_same_captions_whatever_else_is_in_the_batch() -> None:
    model, prefixes = random_decoder(1), random_prefix(1, batch=9)
    together = search(model, prefixes, vocabulary(), OPTIONS)
    for prefix, candidates in zip(prefixes, together, strict=True):
        (alone,) = search(model, prefix[None], vocabulary(), OPTIONS)
        assert [c.token_ids for c in alone] == [c.token_ids for c in candidates]


def test_another_seed_gives_other_captions() -> None:
    model, prefix = random_decoder(1), random_prefix(1)
    texts = {
        tuple(c.token_ids)
        for seed in range(5)
        for c in search(model, prefix, vocabulary(), replace(OPTIONS, seed=seed))[0]
    }
    assert len(texts) > 5


def test_candidates_come_best_first_with_the_models_own_score() -> None:
    model, prefix = random_decoder(2), random_prefix(2)
    options = replace(OPTIONS, temperature=0.7)
    (candidates,) = search(model, prefix, vocabulary(), options)
    means = [c.mean_log_probability for c in candidates]
    assert means == sorted(means, reverse=True)
    for candidate in candidates:
        forced = forced_log_probability(model, prefix[0], candidate.token_ids)
        assert candidate.log_probability == pytest.approx(forced, abs=1e-4)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.04, 0.3, 0.06])
    numbers = (torch.arange(1000) + 0.5) / 1000  # every number from 0 to 1
    drawn = draw_token(probabilities.log().expand(1000, -1), numbers, 1.0)
    assert Counter(drawn.tolist()) == {1: 500, 3: 300, 0: 100, 4: 60, 2: 40}


def test_nothing_outside_the_nucleus_is_drawn() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.04, 0.3, 0.06])
    numbers = (torch.arange(1000) + 0.5) / 1000
    drawn = draw_token(probabilities.log().expand(1000, -1), numbers, 0.7)
    assert Counter(drawn.tolist()) == {1: 625, 3: 375}  # 0.5 and 0.3 are what reaches 0.7


def test_the_smallest_nucleus_is_greedy_search() -> None:
    model, prefixes = random_decoder(3), random_prefix(3, batch=4)
    narrow = DecodingOptions("nucleus", top_p=1e-6, max_tokens=10)
    greedy = DecodingOptions("greedy", max_tokens=10)
    assert search(model, prefixes, vocabulary(), narrow) == search(
        model, prefixes, vocabulary(), greedy
    )
