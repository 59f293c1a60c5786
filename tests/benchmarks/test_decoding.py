"""What the benchmark times is the same work: the contenders give the same tokens."""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks import decoding
from benchmarks.authors import generate_beam
from benchmarks.timing import memory_bandwidth, side_by_side
from clipcap import DecodingOptions
from clipcap.search import search
from tests.clipcap.decoders import STOP, random_decoder, random_prefix, vocabulary


def test_the_authors_loop_is_the_reference_rule() -> None:
    for seed in range(30):
        model, prefix = random_decoder(seed), random_prefix(seed)
        options = DecodingOptions(beam_rule="reference", beam_size=4, max_tokens=9)
        best = search(model, prefix, vocabulary(), options)[0][0].token_ids
        found = generate_beam(model, prefix, beam_size=4, max_tokens=9, stop_id=STOP)
        assert found == best, seed


def test_every_contender_makes_the_forced_number_of_tokens() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=64, n_head=2)).eval()
    prefix = torch.randn(2, 5, 64)
    theirs = decoding._generate(model, prefix)()
    ours = [found[0].token_ids for found in decoding._ours(model, prefix)()]  # type: ignore[attr-defined]
    assert len(decoding._authors(model, prefix[:1])()) == decoding.TOKENS  # type: ignore[arg-type]
    assert [len(ids) for ids in ours] == [decoding.TOKENS] * 2
    assert theirs.tolist() == ours  # type: ignore[attr-defined]


def test_contenders_take_turns() -> None:
    turns: list[str] = []
    contenders = {name: lambda name=name: turns.append(name) for name in "ab"}
    taken = side_by_side(contenders, rounds=2)
    assert turns == ["a", "b"] * 3
    assert taken.keys() == {"a", "b"}
    assert memory_bandwidth() > 0
