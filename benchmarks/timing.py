"""Timing contenders against each other: in turns, so that what else the machine does hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

STREAMED_BYTES = 1 << 29


def side_by_side(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each in milliseconds, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(measured) for name, measured in times.items()}


def memory_bandwidth(device: torch.device) -> float:
    """How fast the device reads its memory, in GB a second."""
    block = torch.ones(STREAMED_BYTES // 4, device=device)
    (taken_ms,) = side_by_side({"read": block.sum}, rounds=5).values()
    return STREAMED_BYTES / taken_ms / 1e6
