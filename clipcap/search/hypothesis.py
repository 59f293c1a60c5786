"""What a search finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """A sequence of tokens. One that `ended` has a stop token last; others were cut, also where
    one was put after half a sentence."""

    token_ids: list[int]
    log_probability: float
    ended: bool

    @property
    def mean_log_probability(self) -> float:
        """Nats per token."""
        return self.score(1.0)

    def score(self, length_penalty: float) -> float:
        """0 ranks by the sum of log-probabilities, 1 by their mean; more prefers longer ones."""
        score: float = self.log_probability / len(self.token_ids) ** length_penalty
        return score


def ended_first(ranked: Iterable[Hypothesis]) -> list[Hypothesis]:
    """Half a sentence is worth less than a whole one, however it ranks; of several the likeliest
    is the least bad."""
    return sorted(ranked, key=lambda one: (not one.ended, 0 if one.ended else -one.score(1.0)))
