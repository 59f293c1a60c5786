"""Captions of at most so many words, which end as sentences do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from clipcap import Captioner, DecodingOptions
from clipcap.search import Hypothesis, ended_first, search
from clipcap.search.constraints import LIKELY
from tests.clipcap.decoders import (
    STOP,
    log_probabilities_after,
    random_decoder,
    random_prefix,
    vocabulary,
)
from tests.tiny_bundle import COLOURS, SENTENCES


def words(ids: list[int]) -> int:
    return 1 + sum(token % 2 == 0 for token in ids[1:])


@pytest.mark.parametrize("method", ["beam", "greedy", "nucleus"])
@pytest.mark.parametrize("limit", [1, 2, 4])
@pytest.mark.parametrize("seed", range(6))
def test_every_candidate_ends_within_the_limit(method: str, limit: int, seed: int) -> None:
    model, prefixes = random_decoder(seed), random_prefix(seed, batch=4)
    count = 1 if method == "greedy" else 3
    options = DecodingOptions(method, num_captions=count, max_words=limit)
    for candidates in search(model, prefixes, vocabulary(), options):
        assert len(candidates) >= count
        for candidate in candidates:
            assert candidate.token_ids[-1] == STOP
            assert words(candidate.token_ids) <= limit


def test_what_breaks_off_in_half_a_sentence_counts_as_cut_and_comes_last() -> None:
    options = DecodingOptions("beam", beam_size=5, num_captions=3, max_words=3)
    seen = set()
    for seed in range(6):
        model, prefixes = random_decoder(seed), random_prefix(seed, batch=4)
        for prefix, candidates in zip(
            prefixes, search(model, prefixes, vocabulary(), options), strict=True
        ):
            ended = [candidate.ended for candidate in candidates]
            assert ended == sorted(ended, reverse=True)
            for candidate in candidates:
                before = log_probabilities_after(model, prefix, candidate.token_ids[:-1])
                assert candidate.ended == (before[STOP] >= LIKELY)
            seen.update(ended)
    assert seen == {False, True}


def test_of_what_was_cut_the_likeliest_comes_first() -> None:
    """A ranking by words alone knows nothing of an end that is put after "a dog on a"."""
    said = [
        Hypothesis([1, 2], -6.0, False),
        Hypothesis([3], -1.0, False),
        Hypothesis([4], -9.0, True),
    ]
    cut, likelier_cut, whole = said
    assert ended_first(said) == [whole, likelier_cut, cut]


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_glued_to_the_last_word_to_bring_it_to_an_end(seed: int) -> None:
    options = DecodingOptions("beam", beam_size=5, num_captions=5, max_words=2)
    model, prefixes = random_decoder(seed), random_prefix(seed, batch=4)
    for prefix, candidates in zip(
        prefixes, search(model, prefixes, vocabulary(), options), strict=True
    ):
        for candidate in candidates:
            for place, token in enumerate(candidate.token_ids[:-1]):
                if place and words(candidate.token_ids[:place]) == options.max_words:
                    before = log_probabilities_after(model, prefix, candidate.token_ids[:place])
                    assert before[token] >= LIKELY


@pytest.mark.parametrize("seed", range(6))
def test_drawn_captions_and_those_in_place_of_long_ones_come_best_first(seed: int) -> None:
    options = DecodingOptions("nucleus", num_captions=5, max_words=3, seed=seed)
    for candidates in search(random_decoder(seed), random_prefix(seed, 8), vocabulary(), options):
        order = [(not one.ended, -one.mean_log_probability) for one in candidates]
        assert order == sorted(order)


@pytest.mark.parametrize("method", ["beam", "greedy", "nucleus"])
def test_a_limit_that_nothing_reaches_changes_nothing(method: str) -> None:
    model, prefixes = random_decoder(1), random_prefix(1, batch=6)
    options = DecodingOptions(method, max_tokens=8)
    free = search(model, prefixes, vocabulary(), options)
    limited = search(model, prefixes, vocabulary(), replace(options, max_words=9))
    reached = [one[0].ended for one in free]
    assert any(reached)
    for ended, before, after in zip(reached, free, limited, strict=True):
        if ended:
            assert after[0].mean_log_probability >= before[0].mean_log_probability
            assert method == "beam" or after[0].token_ids == before[0].token_ids


@pytest.mark.slow
@pytest.mark.parametrize("method", ["beam", "greedy"])
@pytest.mark.parametrize("limit", [3, 4])
def test_what_is_said_is_one_of_the_sentences_learnt(
    captioner: Captioner, method: str, limit: int
) -> None:
    """A caption that was cut off would be none of them: the tiny captioner knows sentences of
    three, four and five words."""
    images = [Image.new("RGB", (64, 48), colour) for colour in COLOURS]
    options = captioner.defaults.override(method=method, max_words=limit)
    for colour, (caption,) in zip(COLOURS, captioner.caption(images, options), strict=True):
        whole = {sentence.format(colour).capitalize() + "." for sentence in SENTENCES}
        assert caption.text in whole
        assert len(caption.text.split()) <= limit
