"""Ranking by consensus: what is drawn stands for what the decoder believes, and the candidate that
agrees with most of it comes first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from clipcap import Captioner, DecodingOptions
from clipcap.bundle import load
from clipcap.consensus import Consensus
from clipcap.decoder import Decoder
from clipcap.models import BUNDLED
from clipcap.search import Hypothesis, draw
from clipcap.search.sequential import SPREAD_TEMPERATURE
from clipcap.training.dev import score_dev
from tests.clipcap.decoders import (
    NEVER,
    log_probabilities_after,
    random_decoder,
    random_prefix,
    vocabulary,
)

IMAGES = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "cyan")]
DRAWS = DecodingOptions(consensus_draws=200, max_tokens=3, no_repeat_ngram=0)


@pytest.fixture(scope="module")
def bundled() -> Decoder:
    return load(BUNDLED).decoder


@pytest.fixture(scope="module")
def consensus(bundled: Decoder) -> Consensus:
    return Consensus(bundled.tokenizer)


def test_what_most_agree_with_comes_first(consensus: Consensus) -> None:
    candidates = ["a cat sleeps", "a dog runs in the snow", "a man on a bike"]
    drawn = ["a dog in the snow", "a brown dog runs through snow", "a cat sleeps", "the dog runs"]
    assert consensus.order(candidates, drawn) == [1, 0, 2]


def test_rare_words_weigh_more(consensus: Consensus) -> None:
    assert consensus.order(["a dog", "the snowboard"], ["a snowboard"]) == [1, 0]


def test_a_candidate_of_another_length_agrees_less(consensus: Consensus) -> None:
    longer = "a dog runs and then it sits and waits and looks and sleeps and eats"
    assert consensus.order([longer, "a dog runs quickly"], ["a dog runs"]) == [1, 0]


def test_nothing_said_agrees_with_nothing(consensus: Consensus) -> None:
    assert consensus.order(["", ".", "a dog"], ["", "a dog"]) == [2, 0, 1]


def test_words_without_a_token_can_be_agreed_with() -> None:
    """A tokenizer that was trained on few captions drops what it has never seen."""
    unheard = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    assert unheard.encode(" dog") == []
    assert Consensus(unheard).order(["cat", "dog"], ["dog"]) == [1, 0]


def test_each_token_is_drawn_as_often_as_it_is_likely() -> None:
    """Spread evenly: not just on average, but to a draw, and that after each beginning, too."""
    model, prefix = random_decoder(4), random_prefix(4)
    (drawn,) = draw(model, prefix, NEVER, DRAWS)
    assert len(drawn) == 200
    for length in range(2):
        begun = Counter(tuple(one.token_ids[:length]) for one in drawn)
        counts = Counter(tuple(one.token_ids[: length + 1]) for one in drawn)
        for beginning, times in begun.items():
            likely = log_probabilities_after(model, prefix[0], list(beginning))
            shares = (likely / SPREAD_TEMPERATURE).softmax(dim=0)
            for token, share in enumerate(shares.tolist()):
                assert abs(counts[(*beginning, token)] - times * share) < 2


def test_what_is_drawn_depends_on_seed_and_prefix_alone() -> None:
    model, prefixes = random_decoder(1), random_prefix(1, batch=9)
    options = DecodingOptions(consensus_draws=5, max_tokens=10)
    together = draw(model, prefixes, vocabulary(), options)
    alone = [draw(model, prefix[None], vocabulary(), options)[0] for prefix in prefixes]
    tokens = [[one.token_ids for one in ones] for ones in together]
    assert tokens == [[one.token_ids for one in ones] for ones in alone]


def test_candidates_are_ranked_by_it_where_asked_for(captioner: Captioner) -> None:
    options = captioner.defaults.override(beam_size=6, num_captions=6)
    by_consensus = options.override(rank_by="consensus")
    found = captioner.caption(IMAGES, options)
    ranked = captioner.caption(IMAGES, by_consensus)
    best = captioner.caption(IMAGES, by_consensus.override(num_captions=1, beam_size=6))
    assert found != ranked
    assert ranked == [captioner.caption([image], by_consensus)[0] for image in IMAGES]
    for before, after, (first,) in zip(found, ranked, best, strict=True):
        assert {one.text for one in before} == {one.text for one in after}
        assert first == after[0]


def test_one_candidate_needs_no_ranking(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = captioner.defaults.override(method="greedy")
    found = captioner.caption(IMAGES, greedy)
    monkeypatch.setattr("clipcap.captioner.draw", None)  # not to be called
    assert captioner.caption(IMAGES, greedy.override(rank_by="consensus")) == found


def test_a_run_measures_dev_by_what_its_bundle_will_say(
    bundled: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr("clipcap.training.dev.score", lambda texts, _: said.append(texts))
    prefixes = torch.randn(4, 8 * bundled.dim, generator=torch.Generator().manual_seed(0)) / 10
    mapper = torch.nn.Unflatten(1, (8, bundled.dim))
    beams = DecodingOptions(beam_size=5, max_tokens=12)
    for options in (beams, replace(beams, rank_by="consensus")):
        score_dev(mapper, bundled, prefixes, [], options)
    plain, ranked = said
    assert plain != ranked
    assert len(plain) == len(ranked) == 4


def test_candidates_stay_what_search_found_and_whole_ones_come_first(
    bundled: Decoder, consensus: Consensus
) -> None:
    said = ("a cat sleeps", "a dog runs", "a dog", "two men")
    cat, running, dog, men = [
        Hypothesis(bundled.tokenizer.encode(f" {text}"), -i / 3, ended=text != "a dog")
        for i, text in enumerate(said)
    ]
    ranked = consensus.rank([[cat, running, dog], [men]], [[running, dog], [cat]])
    assert ranked == [[running, cat, dog], [men]]
