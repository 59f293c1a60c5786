"""Greedy and standard beam search, against plain loops without cache or batch, over many random
tiny decoders; and what all methods have in common."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from clipcap import DecodingOptions
from clipcap.gpt2 import GPT2, Cache
from clipcap.largest import largest
from clipcap.search import Hypothesis, Vocabulary, search
from clipcap.search.sequential import LEFT_IN
from tests.clipcap.decoders import (
    NEVER,
    SIZE,
    STOP,
    forced_log_probability,
    log_probabilities_after,
    random_decoder,
    random_prefix,
    repeats,
    vocabulary,
)

METHODS = [
    pytest.param({"method": "greedy"}, id="greedy"),
    pytest.param({"method": "beam", "beam_size": 3}, id="beam"),
    pytest.param({"method": "beam", "beam_size": 3, "beam_rule": "reference"}, id="reference"),
]


def plain_greedy(model: GPT2LMHeadModel, prefix: Tensor, max_tokens: int, n: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < max_tokens and (not ids or ids[-1] != STOP):
        order = log_probabilities_after(model, prefix, ids).argsort(descending=True).tolist()
        ids.append(next(token for token in order if not repeats([*ids, token], n)))
    return ids


def plain_beam(
    model: GPT2LMHeadModel, prefix: Tensor, options: DecodingOptions
) -> list[Hypothesis]:
    """The rule of clipcap.search.standard, as slowly as can be."""
    width, n, penalty = options.beam_size, options.no_repeat_ngram, options.length_penalty
    beams = [Hypothesis([], 0.0, ended=False)]
    finished: list[Hypothesis] = []
    for length in range(1, options.max_tokens + 1):
        candidates = [
            Hypothesis([*beam.token_ids, token], beam.log_probability + value, token == STOP)
            for beam in beams
            for token, value in enumerate(
                log_probabilities_after(model, prefix, beam.token_ids).tolist()
            )
            if not repeats([*beam.token_ids, token], n)
        ]
        candidates.sort(key=lambda candidate: -candidate.log_probability)
        finished += [c for c in candidates[:width] if c.ended]
        beams = [c for c in candidates if not c.ended][:width]
        finished.sort(key=lambda candidate: -candidate.score(penalty))
        del finished[width:]
        if length == options.max_tokens:
            return [*finished, *beams][:width]
        if len(finished) == width and finished[-1].score(penalty) >= beams[0].score(penalty):
            break
    return finished


@pytest.mark.parametrize("n", [0, 2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_greedy_with_cache_and_batch_equals_the_plain_loop(seed: int, n: int) -> None:
    model, prefixes = random_decoder(seed), random_prefix(seed, batch=5)
    options = DecodingOptions("greedy", max_tokens=12, no_repeat_ngram=n)
    found = search(GPT2(model), prefixes, vocabulary(), options)
    for prefix, (hypothesis,) in zip(prefixes, found, strict=True):
        assert hypothesis.token_ids == plain_greedy(model, prefix, 12, n)


@pytest.mark.parametrize(("n", "penalty"), [(0, 1.0), (2, 1.0), (1, 0.0), (3, 0.5)])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_beam_with_cache_and_batch_equals_the_plain_loop(
    seed: int, width: int, n: int, penalty: float
) -> None:
    model, prefixes = random_decoder(seed), random_prefix(seed, batch=4)
    options = DecodingOptions(
        "beam", beam_size=width, max_tokens=8, no_repeat_ngram=n, length_penalty=penalty
    )
    found = search(GPT2(model), prefixes, vocabulary(), options)
    for prefix, candidates in zip(prefixes, found, strict=True):
        expected = plain_beam(model, prefix, options)
        assert [c.token_ids for c in candidates] == [c.token_ids for c in expected]
        assert [c.ended for c in candidates] == [c.ended for c in expected]
        for candidate, wanted in zip(candidates, expected, strict=True):
            assert candidate.log_probability == pytest.approx(wanted.log_probability, abs=1e-4)


@pytest.mark.parametrize("chosen", METHODS)
def test_a_caption_does_not_depend_on_what_else_is_in_the_batch(chosen: dict[str, Any]) -> None:
    model, prefixes = random_decoder(1), random_prefix(1, batch=9)
    options = DecodingOptions(**chosen, max_tokens=10)
    together = search(GPT2(model), prefixes, vocabulary(), options)
    for row, (candidates, prefix) in enumerate(zip(together, prefixes, strict=True)):
        (alone,) = search(GPT2(model), prefix[None], vocabulary(), options)
        assert [c.token_ids for c in candidates] == [c.token_ids for c in alone], row
    backwards = search(GPT2(model), prefixes.flip(0), vocabulary(), options)
    assert [c[0].token_ids for c in backwards] == [c[0].token_ids for c in together[::-1]]


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_enough_beam_finds_the_best_of_all_sequences(seed: int) -> None:
    """The vocabulary is so small that every sequence can be tried."""
    size, longest = 5, 3
    model, prefix = random_decoder(seed, size), random_prefix(seed)
    best = max(
        (
            [*ids, STOP]
            for length in range(longest)
            for ids in itertools.product(set(range(size)) - {STOP}, repeat=length)
        ),
        key=lambda ids: forced_log_probability(model, prefix[0], ids) / len(ids),
    )
    options = DecodingOptions("beam", beam_size=size**longest, max_tokens=longest)
    found = search(GPT2(model), prefix, vocabulary(size), options)[0][0]
    assert found.token_ids == best
    forced = forced_log_probability(model, prefix[0], best)
    assert found.log_probability == pytest.approx(forced, abs=1e-4)


@pytest.mark.parametrize("chosen", METHODS)
def test_the_score_is_that_of_a_teacher_forced_pass(chosen: dict[str, Any]) -> None:
    model, prefix = random_decoder(4), random_prefix(4)
    (candidates,) = search(
        GPT2(model), prefix, vocabulary(), DecodingOptions(**chosen, max_tokens=10)
    )
    for found in candidates:
        forced = forced_log_probability(model, prefix[0], found.token_ids)
        assert found.log_probability == pytest.approx(forced, abs=1e-4)


def test_candidates_are_distinct_and_best_first() -> None:
    model, prefix = random_decoder(5), random_prefix(5)
    options = DecodingOptions("beam", beam_size=5, num_captions=5, max_tokens=10)
    (candidates,) = search(GPT2(model), prefix, vocabulary(), options)
    assert len({tuple(c.token_ids) for c in candidates}) == 5
    order = [(not c.ended, -c.mean_log_probability) for c in candidates]
    assert order == sorted(order)


def test_any_of_several_stop_tokens_ends_a_caption() -> None:
    """A full stop with a space before it is another token than one without."""
    stops = torch.zeros(SIZE, dtype=torch.bool)
    stops[[STOP, 5, 8]] = True
    several = Vocabulary(STOP, stops, torch.zeros_like(stops))
    for seed in range(10):
        model, prefixes = random_decoder(seed), random_prefix(seed, batch=4)
        for method in ("greedy", "beam", "nucleus"):
            found = search(GPT2(model), prefixes, several, DecodingOptions(method, max_tokens=20))
            for candidates in found:
                for candidate in candidates:
                    *before, last = candidate.token_ids
                    assert not stops[before].any()
                    assert candidate.ended == bool(stops[last])


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows are read at each step, 0 standing for a prefix."""
    rows: list[int] = []
    read = GPT2.__call__

    def counted(model: GPT2, vectors: Tensor, cache: Cache) -> Tensor:
        rows.append(len(vectors) if vectors.shape[1] == 1 else 0)
        logits = read(model, vectors, cache)
        assert logits.shape == (len(vectors), SIZE)  # none for the positions of the prefix
        return logits

    monkeypatch.setattr(GPT2, "__call__", counted)
    return rows


@pytest.mark.parametrize("chosen", METHODS)
def test_one_forward_pass_a_step_for_all_beams_of_all_images(
    chosen: dict[str, Any], rows_read: list[int]
) -> None:
    model, prefixes = random_decoder(6), random_prefix(6, batch=4)
    search(GPT2(model), prefixes, NEVER, DecodingOptions(**chosen, max_tokens=6))
    assert rows_read == [0, *[4 * chosen.get("beam_size", 1)] * 5]  # the prefix once for all beams


def test_images_that_have_finished_leave_the_batch(
    rows_read: list[int],
) -> None:
    model, prefixes = random_decoder(7), random_prefix(7, batch=12)
    found = search(GPT2(model), prefixes, vocabulary(), DecodingOptions("greedy", max_tokens=20))
    lengths = [len(hypothesis.token_ids) for (hypothesis,) in found]
    assert len(set(lengths)) > 1  # or this test would say nothing
    going = [sum(n > step for n in lengths) for step in range(1, max(lengths))]
    assert len(rows_read) == 1 + len(going)
    for rows, needed in zip(rows_read[1:], going, strict=True):
        assert needed <= rows < needed / (1 - LEFT_IN)


@pytest.mark.parametrize("chosen", METHODS)
def test_the_length_is_a_limit_and_the_stop_token_ends(chosen: dict[str, Any]) -> None:
    model, prefixes = random_decoder(8), random_prefix(8, batch=20)
    found = search(GPT2(model), prefixes, vocabulary(), DecodingOptions(**chosen, max_tokens=4))
    for hypothesis in itertools.chain.from_iterable(found):
        assert len(hypothesis.token_ids) <= 4
        assert STOP not in hypothesis.token_ids[:-1]
        assert hypothesis.ended == (hypothesis.token_ids[-1] == STOP)
        assert math.isfinite(hypothesis.log_probability)


@pytest.mark.parametrize("chosen", METHODS)
def test_a_caption_ends_where_the_decoder_has_no_more_positions(chosen: dict[str, Any]) -> None:
    model, prefix = random_decoder(0), random_prefix(0)  # 32 positions, 3 taken by the prefix
    options = DecodingOptions(**chosen, max_tokens=500, no_repeat_ngram=0)
    found = search(GPT2(model), prefix, NEVER, options)[0][0]
    assert len(found.token_ids) == 30  # the last token is not read again


@pytest.mark.parametrize("size", [1, 10, 1000, 64 * 40, 64 * 40 + 1, 50257])
def test_the_largest_of_many_are_those_of_topk(size: int) -> None:
    torch.manual_seed(size)
    values = torch.randn(7, size)
    values[3] = -torch.inf
    values[4, -1] = 100.0  # in what is left over behind the blocks
    count = min(10, size)
    found, places = largest(values, 10)
    assert torch.equal(found, values.topk(count).values)
    assert torch.equal(values.gather(1, places), found)
    assert all(len(set(row)) == count for row in places.tolist())
