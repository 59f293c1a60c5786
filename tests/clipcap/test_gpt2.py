"""Our GPT-2 beside the one of transformers that it was made of, and what each precision costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from clipcap import DecodingOptions
from clipcap.gpt2 import GPT2
from clipcap.precision import possible_modes
from clipcap.recorded import RecordedGPT2, rounded
from clipcap.search import Vocabulary, begin, search
from clipcap.search.model import Reading
from tests.clipcap.decoders import random_decoder, random_prefix, vocabulary

MODES = possible_modes(torch.device("cpu"))
WIDTH, SIZE, STOP = 96, 500, 7
NEVER = Vocabulary(-1, torch.zeros(SIZE, dtype=torch.bool), torch.zeros(SIZE, dtype=torch.bool))
LARGEST_ERROR = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.05}


def network(**chosen: Any) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_embd": WIDTH, "n_layer": 3, "n_head": 4, "n_positions": 40, "vocab_size": SIZE}
    ends = {"bos_token_id": 0, "eos_token_id": STOP}
    model = GPT2LMHeadModel(GPT2Config(**(sizes | ends | chosen))).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh ones say nearly the same of every token
            parameter.mul_(3)
    return model


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"activation_function": "relu"},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"n_inner": 50},
    ],
)
@torch.inference_mode()
def test_it_says_what_transformers_says(chosen: dict[str, Any]) -> None:
    model = network(**chosen)
    tell_the_same(
        begin(model, 12),
        begin(GPT2(model), 12),
        [0, 0, 1, 1, 2, 2],  # each image to two rows
        [1, 0, 3, 3, 4, 5],  # they change places, one within its image
        [0, 1, 5, 4],  # an image leaves
        [1, 2, 2],  # not as many rows of each any more
        [2, 0, 1],
        [0, 1, 2],  # all stay
    )


@pytest.mark.parametrize("beams", [5, 9])
@torch.inference_mode()
def test_beams_say_what_transformers_says(beams: int) -> None:
    """So few that they share what they have read, and more."""
    model = network()

    def of(*images: int) -> list[int]:
        """The beams of these, some chosen more than once and others not."""
        chosen = torch.randint(beams, (len(images), beams))
        return (torch.tensor(images)[:, None] * beams + chosen).flatten().tolist()

    first = [image for image in range(3) for _ in range(beams)]
    tell_the_same(
        begin(model, 12, beams=True),
        begin(GPT2(model), 12, beams=True),
        first,
        of(0, 1, 2),
        of(0, 1, 2),
        of(0, 2),
        list(range(2 * beams)),  # all stay
        of(1),
        of(0),
    )


@torch.inference_mode()
def test_beams_may_become_more_than_share() -> None:
    model = network()
    rows = [0] * 5 + [1] * 5, [image * 5 + beam % 5 for image in (0, 1) for beam in range(12)]
    tell_the_same(
        begin(model, 12, beams=True), begin(GPT2(model), 12, beams=True), *rows, list(range(24)),
        images=2,
    )  # fmt: skip


def tell_the_same(theirs: Reading, ours: Reading, *selected: list[int], images: int = 3) -> None:
    prefix = torch.randn(images, 5, WIDTH)
    torch.testing.assert_close(
        ours.read_prefix(prefix), theirs.read_prefix(prefix), atol=1e-4, rtol=0
    )
    for rows in selected:
        tokens = torch.randint(SIZE, (len(rows),))
        torch.testing.assert_close(
            ours.step(torch.tensor(rows), tokens),
            theirs.step(torch.tensor(rows), tokens),
            atol=1e-4,
            rtol=0,
        )


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions("greedy", max_tokens=12),
        DecodingOptions("greedy", max_tokens=12, max_words=3),
        DecodingOptions("nucleus", num_captions=4, max_tokens=12),
        DecodingOptions("beam", beam_size=4, max_tokens=12),
        DecodingOptions("beam", beam_size=4, max_tokens=12, max_words=3),
        DecodingOptions(beam_rule="reference", beam_size=4, max_tokens=12),
    ],
)
@pytest.mark.parametrize("network_of", [GPT2, RecordedGPT2])
def test_every_search_finds_the_same_with_transformers_model(
    network_of: type[GPT2], options: DecodingOptions
) -> None:
    for seed in range(10):
        model, prefixes = random_decoder(seed), random_prefix(seed, batch=5)
        theirs = search(model, prefixes, vocabulary(), options)
        ours = search(network_of(model), prefixes, vocabulary(), options)
        for found, wanted in zip(ours, theirs, strict=True):
            assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
            for one, other in zip(found, wanted, strict=True):
                assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)


@torch.inference_mode()
def test_recorded_steps_serve_one_search_after_another() -> None:
    """Each leaves its keys and values behind, where the next has its own."""
    torch.manual_seed(0)
    model, options = network(), DecodingOptions(beam_size=3, max_tokens=12)
    ours = RecordedGPT2(model)
    for images, length in ((5, 9), (1, 4), (6, 9), (2, 20)):
        prefixes = torch.randn(images, length, WIDTH)
        found, wanted = (search(each, prefixes, NEVER, options) for each in (ours, model))
        assert [[one.token_ids for one in ones] for ones in found] == [
            [one.token_ids for one in ones] for ones in wanted
        ]
    assert len(ours._steps) == 3  # 5 and 6 images have the same


def test_sizes_are_rounded_up_so_that_few_recordings_serve_all() -> None:
    assert [rounded(rows, 40) for rows in (1, 8, 9, 80)] == [(8, 64), (8, 64), (16, 64), (128, 64)]
    assert [rounded(8, longest)[1] for longest in (1, 32, 33)] == [32, 32, 64]


@pytest.mark.parametrize("mode", MODES)
@torch.inference_mode()
def test_a_precision_errs_by_no_more_than_it_may(mode: Any) -> None:
    model, prefix = network(), torch.randn(8, 5, WIDTH)
    wanted = begin(model, 2).read_prefix(prefix)
    error = begin(GPT2(model, mode), 2).read_prefix(prefix) - wanted
    assert error.norm() < LARGEST_ERROR[mode] * (wanted - wanted.mean(dim=1, keepdim=True)).norm()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions("greedy", max_tokens=10),
        DecodingOptions("beam", max_tokens=10),
        DecodingOptions("beam", beam_size=9, max_tokens=10),
        DecodingOptions("nucleus", max_tokens=10),
        DecodingOptions("nucleus", num_captions=5, max_tokens=10),
    ],
    ids=lambda options: f"{options.method}-{options.beam_size}-{options.num_captions}",
)
def test_in_no_precision_does_a_caption_depend_on_its_batch(
    mode: Any, options: DecodingOptions
) -> None:
    model = GPT2(network(), mode)
    stops = torch.arange(SIZE) % 50 == STOP  # some end early
    prefixes = torch.randn(33, 5, WIDTH)
    together = search(model, prefixes, Vocabulary(STOP, stops, stops), options)
    for prefix, candidates in zip(prefixes, together, strict=True):
        (alone,) = search(model, prefix[None], Vocabulary(STOP, stops, stops), options)
        assert [one.token_ids for one in alone] == [one.token_ids for one in candidates]
        for one, other in zip(alone, candidates, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
@torch.inference_mode()
def test_what_a_search_chooses_from_is_exact_whatever_the_precision(mode: Any) -> None:
    """Without layers there is nothing but the head to err."""
    model, prefix = network(n_layer=0), torch.randn(8, 1, WIDTH)
    wanted = begin(GPT2(model), 2).read_prefix(prefix)
    few = wanted.topk(20).indices
    found = begin(GPT2(model, mode), 2).read_prefix(prefix)
    error = found.gather(1, few) - wanted.gather(1, few)
    # The sum over all tokens still errs, but by the same for all of a row.
    torch.testing.assert_close(error, error[:, :1].expand_as(error), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_what_all_logits_share_takes_no_bits_from_them() -> None:
    """Those of a real GPT-2 are about -100: in bf16 half a nat would be lost at once."""
    model = network()
    wanted = begin(GPT2(model), 2).read_prefix(torch.ones(1, 5, WIDTH))
    model.transformer.wte.weight += 20 * torch.randn(WIDTH)
    for mode in MODES:
        moved = GPT2(model, mode)
        found = begin(moved, 2).read_prefix(torch.ones(1, 5, WIDTH))
        assert (found - wanted).abs().max() < 0.5, mode
