"""Decoding with a GPT-2 of 124 million seeded random weights: our search beside the authors'
loop and transformers' `generate`, 16 forced tokens, beam 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from benchmarks.authors import generate_beam
from benchmarks.timing import memory_bandwidth, side_by_side
from clipcap import DecodingOptions
from clipcap.gpt2 import GPT2
from clipcap.precision import possible_modes
from clipcap.recorded import RecordedGPT2
from clipcap.search import Vocabulary, search

TOKENS = 16
BEAM_SIZE = 5
NO_TOKEN = -1
CPU_CASES = ((10, 1), (10, 8), (10, 16), (40, 1))
"""Prefix length K and images. The authors' loop takes one image at a time."""
GPU_CASES = ((10, 1), (10, 16), (10, 256), (40, 1))
AUTHORS, GENERATE = "the authors' loop", "transformers generate"
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Row:
    """One contender in one case."""

    prefix_length: int
    images: int
    contender: str
    ms: float
    """For all images together."""
    authors_ms: float
    """Of the authors' loop, for one image."""
    generate_ms: float
    """For all images together."""
    floor_ms: float
    """Of reading the weights once for each step."""

    def __str__(self) -> str:
        per_image = self.ms / self.images
        return (
            f"| {self.prefix_length} | {self.images} | {self.contender} | {per_image:.1f} "
            f"| {self.authors_ms / per_image:.1f} | {self.generate_ms / self.ms:.2f} "
            f"| {self.ms / TOKENS:.1f} | {self.floor_ms / TOKENS:.2f} |"
        )


HEADER = """\
| K | images | contender | ms an image | x authors' | x generate | ms a step | floor |
|---|---|---|---|---|---|---|---|"""


def measure(rounds: int, device: torch.device, cases: Sequence[tuple[int, int]]) -> list[Row]:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval().to(device)  # type: ignore[arg-type]
    network = RecordedGPT2 if device.type == "cuda" else GPT2
    ours = {f"clipcap {mode}": network(model, mode) for mode in possible_modes(device)}
    if device.type == "cuda":  # nobody would run the others in fp32 there
        model = model.bfloat16()
    floors_ms = _floors_ms(model, device)
    rows: list[Row] = []
    authors_ms: dict[int, float] = {}
    for length, images in cases:
        prefix = torch.randn(images, length, model.config.n_embd).to(device)
        contenders = {GENERATE: _generate(model, prefix.to(model.dtype))}
        contenders |= {name: _ours(each, prefix) for name, each in ours.items()}
        if images == 1:
            contenders[AUTHORS] = _authors(model, prefix.to(model.dtype))
        taken = side_by_side(contenders, rounds)
        authors_ms.setdefault(length, taken.get(AUTHORS, 0.0))
        rows += [
            Row(
                length,
                images,
                name,
                ms,
                authors_ms[length],
                taken[GENERATE],
                floors_ms[name.removeprefix("clipcap ") if name in ours else ""],
            )
            for name, ms in taken.items()
        ]
    return rows


def _floors_ms(model: GPT2LMHeadModel, device: torch.device) -> dict[str, float]:
    """By mode; "" stands for the model of the others."""
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    sizes = {**WEIGHT_BYTES, "": model.dtype.itemsize}
    bandwidth = memory_bandwidth(device)
    return {mode: TOKENS * millions * size / bandwidth for mode, size in sizes.items()}


def _authors(model: GPT2LMHeadModel, prefix: Tensor) -> Callable[[], object]:
    return lambda: generate_beam(
        model, prefix, beam_size=BEAM_SIZE, max_tokens=TOKENS, stop_id=NO_TOKEN
    )


def _generate(model: GPT2LMHeadModel, prefix: Tensor) -> Callable[[], object]:
    config = GenerationConfig(
        num_beams=BEAM_SIZE,
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=model.config.eos_token_id,
    )
    seen = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
    return torch.inference_mode()(
        lambda: model.generate(inputs_embeds=prefix, attention_mask=seen, generation_config=config)
    )


def _ours(model: GPT2, prefix: Tensor) -> Callable[[], object]:
    none = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    options = DecodingOptions(
        method="beam", beam_size=BEAM_SIZE, max_tokens=TOKENS, no_repeat_ngram=0
    )
    return lambda: search(model, prefix, Vocabulary(NO_TOKEN, none, none), options)
