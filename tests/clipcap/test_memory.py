"""Running out of the device's memory: work is done in smaller parts, and comes out the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from clipcap import Captioner
from clipcap.gpt2 import GPT2
from clipcap.memory import Room
from tests.tiny_bundle import COLOURS

IMAGES = [Image.new("RGB", (30, 30), colour) for colour in COLOURS]


def room_for(most: int, sizes: list[int]) -> Any:
    def work(part: slice) -> list[int]:
        items = list(range(part.start, part.stop))
        sizes.append(len(items))
        if len(items) > most:
            raise torch.OutOfMemoryError
        return items

    return work


@pytest.mark.parametrize(
    ("most", "tried"), [(9, [9]), (4, [9, 4, 4, 1]), (2, [9, 4, 2, 2, 2, 2, 1])]
)
def test_what_has_no_room_is_halved_and_the_size_remembered(most: int, tried: list[int]) -> None:
    parts, sizes = Room(), []
    for first in (tried, [size for size in tried if size <= most]):
        found = parts.run(room_for(most, sizes), 9)
        assert [item for part in found for item in part] == list(range(9))
        assert sizes == first
        sizes.clear()


def test_where_there_is_no_room_for_one_it_is_said() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Room().run(room_for(0, []), 9)
    assert Room().run(room_for(0, []), 0) == [[]]


def test_a_captioner_goes_on_in_parts(tiny_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a device whose memory holds two images, and the beams of three."""
    captioner = Captioner.load(tiny_bundle)
    wanted = captioner.caption(IMAGES)
    encode, read = captioner._parts.encoder.encode, GPT2.__call__

    def encode_two(pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError
        return encode(pixels)

    def read_few(model: GPT2, x: torch.Tensor, cache: Any) -> torch.Tensor:
        if len(x) > 3 * captioner.defaults.beam_size:
            raise torch.OutOfMemoryError
        return read(model, x, cache)

    monkeypatch.setattr(captioner._parts.encoder, "encode", encode_two)
    monkeypatch.setattr(GPT2, "__call__", read_few)
    found = captioner.caption(IMAGES)
    assert [[one.text for one in ones] for ones in found] == [
        [one.text for one in ones] for ones in wanted
    ]
