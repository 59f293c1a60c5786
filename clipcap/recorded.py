"""A decoding step on a GPU, recorded once as a CUDA graph and replayed: launching the 300 kernels
of a step one by one takes longer than what they do.

What is recorded works on memory at fixed addresses, for a fixed number of rows and positions.
Both are rounded up, so that few recordings serve all; rows that nobody needs are computed all
the same, and positions not yet read are masked. On a CPU nothing is recorded, and all works
alike.

Source: PyTorch's notes on CUDA semantics, "CUDA Graphs".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from clipcap.gpt2 import GPT2
from clipcap.precision import Mode

FEWEST_ROWS = 8
POSITIONS = 32
"""Rooms for positions are multiples of this."""
WARM_UP = 3
"""Runs before the recording, in which libraries set themselves up."""


class FixedKeyValues:
    """Keys and values where they always are: a cache for one step at a time, of all rows.

    Shapes: `(S, L, 2, N, E)`.
    """

    def __init__(self, config: GPT2Config, rows: int, longest: int, device: torch.device) -> None:
        # What is masked is multiplied by 0, so it must be a number.
        self.store = torch.zeros(longest, config.n_layer, 2, rows, config.n_embd, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self._was_read = torch.zeros(1, longest, dtype=torch.bool, device=device)
        self.mask: Tensor | None = self._was_read

    def placed(self, positions: Tensor, new: int) -> Tensor:
        numbers = torch.arange(len(self.store), device=self.store.device)
        self._was_read.copy_(numbers <= self.position)
        return positions.index_select(0, self.position)

    def keep(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        of_layer = self.store[:, layer]
        new = keys_values.view(*keys_values.shape[:2], 2, -1).permute(1, 2, 0, 3)  # (1, 2, N, E)
        of_layer.index_copy_(0, self.position, new)
        keys, values = of_layer.permute(1, 2, 0, 3)  # (2, N, S, E)
        return keys, values


class RecordedStep:
    """The step of so many rows, and what they have read."""

    def __init__(self, model: GPT2, rows: int, longest: int, device: torch.device) -> None:
        self._cache = FixedKeyValues(model.config, rows, longest, device)
        self._tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self._length = 0
        self._run = _record(lambda: model(model.embed(self._tokens), self._cache), device)

    def go_on_from(self, read: Tensor) -> None:
        """Take over what rows have read elsewhere. Shapes: `(L, 2, M, T, E)`."""
        rows, self._length = read.shape[2:4]
        self._cache.store.zero_()
        self._cache.store[: self._length, ..., :rows, :] = read.permute(3, 0, 1, 2, 4)

    def step(self, tokens: Tensor) -> Tensor:
        """Shapes: `(M,)`, the first M rows → logits `(M, V)`, to be overwritten by the next."""
        self._tokens[: len(tokens)] = tokens
        self._cache.position.fill_(self._length)
        self._length += 1
        return self._run()[: len(tokens)]

    def select(self, rows: Tensor) -> None:
        """Make these rows the first ones. Shapes: `(M,)`."""
        read = self._cache.store[: self._length]
        read[..., : len(rows), :] = read.index_select(3, rows)


class RecordedGPT2(GPT2):
    """One that keeps its recorded steps. They are for one search at a time."""

    def __init__(self, model: GPT2LMHeadModel, mode: Mode = "fp32") -> None:
        super().__init__(model, mode)
        self._steps: dict[tuple[int, int], RecordedStep] = {}

    def recorded(self, rows: int, longest: int, device: torch.device) -> RecordedStep:
        """A step with room for so many rows, and for so many positions of each."""
        size = rounded(rows, longest)
        if size not in self._steps:
            self._steps[size] = RecordedStep(self, *size, device)
        return self._steps[size]


def rounded(rows: int, longest: int) -> tuple[int, int]:
    """Rows to a power of 2."""
    return max(FEWEST_ROWS, 1 << (rows - 1).bit_length()), -(-longest // POSITIONS) * POSITIONS


def _record(run: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    if device.type != "cuda":
        return run
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on with what they do on the GPU.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            logits = run()

    def replay() -> Tensor:
        graph.replay()
        return logits

    return replay
