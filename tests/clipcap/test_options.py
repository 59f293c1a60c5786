"""Options of decoding: what is refused, and what a choice brings with it."""

from __future__ import annotations

import pytest

from clipcap import DecodingOptions, OptionsError


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"method": "magic"}, "method"),
        ({"beam_rule": "magic"}, "beam_rule"),
        ({"rank_by": "magic"}, "rank_by"),
        ({"beam_size": 0}, "beam_size"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"consensus_draws": 0}, "consensus_draws"),
        ({"max_words": 0}, "max_words"),
        ({"num_captions": 0}, "num_captions"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"num_captions": 6, "beam_size": 5}, "beam_size"),
        ({"method": "greedy", "num_captions": 2}, "beam search"),
        ({"beam_rule": "reference", "max_words": 5}, "max_words"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(OptionsError, match=named):
        DecodingOptions(**wrong)  # type: ignore[arg-type]


def test_overriding_widens_the_beam_where_it_has_to() -> None:
    options = DecodingOptions("beam", beam_size=3).override(num_captions=5)
    assert (options.beam_size, options.num_captions) == (5, 5)
    assert DecodingOptions("beam", beam_size=3).override(method="greedy").method == "greedy"


def test_none_is_no_choice() -> None:
    options = DecodingOptions(beam_size=2, max_words=7)
    assert options.override(method=None, max_words=None, num_captions=None) == options


def test_a_limit_of_words_takes_the_standard_rule() -> None:
    options = DecodingOptions(beam_rule="reference").override(max_words=8)
    assert (options.beam_rule, options.max_words) == ("standard", 8)
