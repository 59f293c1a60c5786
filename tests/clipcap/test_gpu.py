"""What only a GPU can show. Without one these are skipped, as the reason says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import GPT2Config, GPT2LMHeadModel

from clipcap import Captioner, DecodingOptions
from clipcap.gpt2 import GPT2
from clipcap.recorded import RecordedGPT2
from clipcap.search import Vocabulary, search
from tests.tiny_bundle import COLOURS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU to use"),
]

IMAGES = [Image.new("RGB", (30, 30), colour) for colour in COLOURS]


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_it_captions_as_on_the_cpu(tiny_bundle: Path, precision: str) -> None:
    wanted = Captioner.load(tiny_bundle, "cpu", "fp32").caption(IMAGES)
    with Captioner.load(tiny_bundle, "cuda", precision) as captioner:  # type: ignore[arg-type]
        for _ in range(2):  # the second replays what the first recorded
            found = captioner.caption(IMAGES)
            assert [[one.text for one in ones] for ones in found] == [
                [one.text for one in ones] for ones in wanted
            ]


@pytest.mark.parametrize("images", [1, 3, 16])
@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus"])
def test_recorded_steps_are_those_not_recorded(method: str, images: int) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=3000, n_embd=256, n_layer=4, n_head=4)
    model = GPT2LMHeadModel(config).eval().to("cuda")  # type: ignore[arg-type]
    stops = torch.arange(3000) < 30
    options = DecodingOptions(method, max_tokens=20)  # type: ignore[arg-type]
    prefixes = torch.randn(images, 10, 256, device="cuda")
    plain, recorded = (
        search(network(model), prefixes, Vocabulary(0, stops, stops), options)
        for network in (GPT2, RecordedGPT2)
    )
    for one, other in zip(plain, recorded, strict=True):
        assert [each.token_ids for each in one] == [each.token_ids for each in other]


def test_more_than_there_is_memory_for_is_done_in_parts(tiny_bundle: Path) -> None:
    with Captioner.load(tiny_bundle, "cuda") as captioner:
        wanted = captioner.caption(IMAGES)
        torch.cuda.empty_cache()
        share = (torch.cuda.memory_reserved() + (64 << 20)) / torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(share)
        try:
            found = captioner.caption(IMAGES * 512)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert captioner._room_to_encode.limit or captioner._room_to_decode.limit
        assert [ones[0].text for ones in found] == [ones[0].text for ones in wanted] * 512
