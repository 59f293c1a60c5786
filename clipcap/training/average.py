"""A moving average of the weights, which is what is measured and kept: it does better on what it
has not seen than the weights of any one step.

Source: Polyak, Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the
exponential form with a decay that grows over the first steps, as in TensorFlow's
`ExponentialMovingAverage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Of all parameters of a module that learn."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._learning = [p for p in module.parameters() if p.requires_grad]
        self._averages = [p.detach().clone() for p in self._learning]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After a step of the optimiser, the first of which is 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        weights = [p.detach() for p in self._learning]
        torch._foreach_lerp_(self._averages, weights, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has its averages for weights inside."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, parameter in enumerate(self._learning):
            parameter.data, self._averages[i] = self._averages[i], parameter.data

    @property
    def state(self) -> list[Tensor]:
        return self._averages

    @torch.no_grad()
    def load(self, state: Sequence[Tensor]) -> None:
        torch._foreach_copy_(self._averages, list(state))
