"""Search, against plain loops without cache or batch, over many random tiny decoders."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from clipcap import DecodingOptions, OptionsError
from clipcap.search import Hypothesis, search

WIDTH, VOCABULARY, STOP = 16, 11, 3


def random_decoder(seed: int, vocabulary: int = VOCABULARY) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32, eos_token_id=STOP
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)  # fresh weights are nearly uniform over the vocabulary
    model.train(False)
    return model


def random_prefix(seed: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, WIDTH, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def log_probabilities_after(model: GPT2LMHeadModel, prefix: Tensor, ids: list[int]) -> Tensor:
    """`(V,)`, with neither cache nor batch."""
    tokens = model.transformer.wte(torch.tensor([ids], dtype=torch.long))
    logits = model(inputs_embeds=torch.cat([prefix[None], tokens], dim=1)).logits
    return torch.log_softmax(logits[0, -1], dim=-1)


def plain_greedy(model: GPT2LMHeadModel, prefix: Tensor, max_tokens: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < max_tokens and (not ids or ids[-1] != STOP):
        ids.append(int(log_probabilities_after(model, prefix, ids).argmax()))
    return ids


def plain_beam(
    model: GPT2LMHeadModel, prefix: Tensor, width: int, max_tokens: int
) -> list[Hypothesis]:
    """The rule of clipcap.search._beam, as slowly as can be."""
    beams = [Hypothesis([], 0.0)]
    finished: list[Hypothesis] = []
    for length in range(1, max_tokens + 1):
        candidates = [
            Hypothesis([*beam.token_ids, token], beam.log_probability + value)
            for beam in beams
            for token, value in enumerate(
                log_probabilities_after(model, prefix, beam.token_ids).tolist()
            )
        ]
        candidates.sort(key=lambda candidate: -candidate.log_probability)
        finished += [c for c in candidates[:width] if c.token_ids[-1] == STOP]
        beams = [c for c in candidates if c.token_ids[-1] != STOP][:width]
        if length == max_tokens:
            finished += beams
        finished.sort(key=lambda candidate: -candidate.mean_log_probability)
        del finished[width:]
        full = len(finished) == width
        if full and finished[-1].mean_log_probability >= beams[0].mean_log_probability:
            break
    return finished


@pytest.mark.parametrize("seed", range(30))
def test_greedy_with_cache_and_batch_equals_the_plain_loop(seed: int) -> None:
    model, prefixes = random_decoder(seed), random_prefix(seed, batch=5)
    found = search(model, prefixes, STOP, DecodingOptions("greedy", max_tokens=12))
    for prefix, (hypothesis,) in zip(prefixes, found, strict=True):
        assert hypothesis.token_ids == plain_greedy(model, prefix, 12)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(10))
def test_beam_with_cache_and_batch_equals_the_plain_loop(seed: int, width: int) -> None:
    model, prefixes = random_decoder(seed), random_prefix(seed, batch=4)
    options = DecodingOptions("beam", beam_size=width, num_captions=width, max_tokens=8)
    found = search(model, prefixes, STOP, options)
    for prefix, candidates in zip(prefixes, found, strict=True):
        expected = plain_beam(model, prefix, width, 8)
        assert [c.token_ids for c in candidates] == [c.token_ids for c in expected]
        for candidate, wanted in zip(candidates, expected, strict=True):
            assert candidate.log_probability == pytest.approx(wanted.log_probability, abs=1e-4)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_a_caption_does_not_depend_on_what_else_is_in_the_batch(method: str) -> None:
    model, prefixes = random_decoder(1), random_prefix(1, batch=9)
    options = DecodingOptions(method, beam_size=3, max_tokens=10)
    together = search(model, prefixes, STOP, options)
    for row, ((candidate,), prefix) in enumerate(zip(together, prefixes, strict=True)):
        ((alone,),) = search(model, prefix[None], STOP, options)
        assert candidate.token_ids == alone.token_ids, row
    backwards = search(model, prefixes.flip(0), STOP, options)
    assert [c[0].token_ids for c in backwards] == [c[0].token_ids for c in together[::-1]]


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_enough_beam_finds_the_best_of_all_sequences(seed: int) -> None:
    """The vocabulary is so small that every sequence can be tried."""
    vocabulary, longest = 5, 3
    model, prefix = random_decoder(seed, vocabulary), random_prefix(seed)
    best = max(
        (
            score_by_hand(model, prefix[0], list(ids))
            for length in range(1, longest + 1)
            for ids in itertools.product(range(vocabulary), repeat=length)
            if STOP not in ids[:-1] and (ids[-1] == STOP or length == longest)
        ),
        key=lambda hypothesis: hypothesis.mean_log_probability,
    )
    options = DecodingOptions("beam", beam_size=vocabulary**longest, max_tokens=longest)
    ((found,),) = search(model, prefix, STOP, options)
    assert found.token_ids == best.token_ids
    assert found.mean_log_probability == pytest.approx(best.mean_log_probability, abs=1e-5)


def score_by_hand(model: GPT2LMHeadModel, prefix: Tensor, ids: list[int]) -> Hypothesis:
    total = sum(
        float(log_probabilities_after(model, prefix, ids[:i])[token]) for i, token in enumerate(ids)
    )
    return Hypothesis(ids, total)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_the_score_is_that_of_a_teacher_forced_pass(method: str) -> None:
    model, prefix = random_decoder(4), random_prefix(4)
    options = DecodingOptions(method, beam_size=3, max_tokens=10)
    ((found,),) = search(model, prefix, STOP, options)
    forced = score_by_hand(model, prefix[0], found.token_ids)
    assert found.mean_log_probability == pytest.approx(forced.mean_log_probability, abs=1e-5)


def test_candidates_are_distinct_and_best_first() -> None:
    model, prefix = random_decoder(5), random_prefix(5)
    options = DecodingOptions("beam", beam_size=5, num_captions=5, max_tokens=10)
    (candidates,) = search(model, prefix, STOP, options)
    assert len({tuple(c.token_ids) for c in candidates}) == 5
    means = [c.mean_log_probability for c in candidates]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_one_forward_pass_a_step_for_all_beams_of_all_images(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prefixes = random_decoder(6), random_prefix(6, batch=4)
    rows = []
    forward = model.forward

    def counted(*args: object, **kwargs: Tensor) -> object:
        ids = kwargs.get("input_ids")
        rows.append(tuple(ids.shape) if ids is not None else None)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    search(model, prefixes, VOCABULARY + 1, DecodingOptions(method, beam_size=3, max_tokens=6))

    each = 4 * (3 if method == "beam" else 1)
    assert rows == [None, *[(each, 1)] * 5]  # the prefix once, then one token for every beam


def test_images_that_have_finished_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prefixes = random_decoder(7), random_prefix(7, batch=12)
    options = DecodingOptions("greedy", max_tokens=20)
    rows = []
    forward = model.forward

    def counted(*args: object, **kwargs: Tensor) -> object:
        if "input_ids" in kwargs:
            rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    found = search(model, prefixes, STOP, options)

    lengths = [len(hypothesis.token_ids) for (hypothesis,) in found]
    assert len(set(lengths)) > 1  # or this test would say nothing
    assert rows == [sum(n > step for n in lengths) for step in range(1, max(lengths))]


def test_the_length_is_a_limit_and_the_stop_token_ends() -> None:
    model, prefixes = random_decoder(8), random_prefix(8, batch=20)
    for (hypothesis,) in search(model, prefixes, STOP, DecodingOptions("beam", max_tokens=4)):
        assert len(hypothesis.token_ids) <= 4
        assert STOP not in hypothesis.token_ids[:-1]
        assert math.isfinite(hypothesis.log_probability)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"method": "magic"}, "method"),
        ({"beam_size": 0}, "beam_size"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"num_captions": 0}, "num_captions"),
        ({"num_captions": 6, "beam_size": 5}, "beam_size"),
        ({"method": "greedy", "num_captions": 2}, "beam search"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(OptionsError, match=named):
        DecodingOptions(**wrong)  # type: ignore[arg-type]


def test_overriding_widens_the_beam_where_it_has_to() -> None:
    options = DecodingOptions("beam", beam_size=3).override(num_captions=5)
    assert (options.beam_size, options.num_captions) == (5, 5)
    assert DecodingOptions("beam", beam_size=3).override(method="greedy").method == "greedy"
