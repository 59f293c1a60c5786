"""What the benchmark times is the same work: the contenders give the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks import decoding, end_to_end
from benchmarks.authors import generate_beam
from benchmarks.timing import memory_bandwidth, side_by_side
from clipcap import Captioner, DecodingOptions
from clipcap.gpt2 import GPT2
from clipcap.precision import possible_modes
from clipcap.search import search
from tests.clipcap.decoders import STOP, random_decoder, random_prefix, vocabulary

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_the_authors_loop_is_the_reference_rule() -> None:
    for seed in range(30):
        model, prefix = random_decoder(seed), random_prefix(seed)
        options = DecodingOptions(beam_rule="reference", beam_size=4, max_tokens=9)
        best = search(GPT2(model), prefix, vocabulary(), options)[0][0].token_ids
        found = generate_beam(model, prefix, beam_size=4, max_tokens=9, stop_id=STOP)
        assert found == best, seed


def test_every_contender_makes_the_forced_number_of_tokens() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=64, n_head=2)).eval()
    prefix = torch.randn(2, 5, 64)
    theirs: Any = decoding._generate(model, prefix)()
    found: Any = decoding._ours(GPT2(model), prefix)()
    ours = [candidates[0].token_ids for candidates in found]
    authors: Any = decoding._authors(model, prefix[:1])()
    assert len(authors) == decoding.TOKENS
    assert [len(ids) for ids in ours] == [decoding.TOKENS] * 2
    assert theirs.tolist() == ours


def test_every_precision_of_the_processor_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    small = GPT2Config(n_layer=1, n_embd=64, n_head=2)
    monkeypatch.setattr(decoding, "GPT2Config", lambda: small)
    rows = decoding.measure(1, CPU, [(3, 1), (3, 2)])
    ours = [f"clipcap {mode}" for mode in possible_modes(CPU)]
    alone = [decoding.GENERATE, *ours, decoding.AUTHORS]
    assert [row.contender for row in rows if row.images == 1] == alone
    assert [row.contender for row in rows if row.images == 2] == [decoding.GENERATE, *ours]
    for row in rows:
        assert row.floor_ms > 0
        assert f"| 3 | {row.images} | {row.contender} |" in str(row)


def test_the_stages_are_measured_beside_the_whole(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "COUNTS", (2,))
    (row,) = end_to_end.measure(1, Captioner.load(tiny_bundle))
    assert list(row.stages_ms) == ["read", "encode", "map", "decode"]
    assert str(row).count("|") == end_to_end.HEADER.splitlines()[0].count("|")


def test_contenders_take_turns() -> None:
    turns: list[str] = []
    contenders = {name: lambda name=name: turns.append(name) for name in "ab"}
    taken = side_by_side(contenders, rounds=2)
    assert turns == ["a", "b"] * 3
    assert taken.keys() == {"a", "b"}
    assert memory_bandwidth(CPU) > 0
