"""A score as what each image adds to it, so that it can be computed over any sample of images."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TINY, SMALL = 1e-15, 1e-9
"""What pycocoevalcap adds to BLEU's counts, so that nothing is divided by 0."""


class Measure(Protocol):
    """A score of N images."""

    def value(self, weights: Array | None = None) -> float:
        """The score times 100, each image counted `weights` times: `(N,)`, by default once."""

    def each(self) -> Array:
        """The score of each image alone, times 100: `(N,)`."""


class Mean:
    """A score that is the mean of the images' own: ROUGE-L, CIDEr-D (whose word weights stay
    those of the whole set)."""

    def __init__(self, values: Array) -> None:
        self._values = 100 * values

    def value(self, weights: Array | None = None) -> float:
        return float(np.average(self._values, weights=weights))

    def each(self) -> Array:
        return self._values


class Bleu:
    """BLEU of order `n`, whose counts are summed over images before they are divided.

    Shapes: counts `(N, 10)`: correct n-grams of order 1 to 4, candidate n-grams of order 1 to 4,
    words of the candidate, words of the reference nearest in length.
    """

    def __init__(self, counts: Array, n: int) -> None:
        self._counts = counts
        self._n = n

    def value(self, weights: Array | None = None) -> float:
        total = self._counts.sum(axis=0) if weights is None else weights @ self._counts
        return float(self._score(total[None])[0])

    def each(self) -> Array:
        return self._score(self._counts)

    def _score(self, counts: Array) -> Array:
        correct, guessed = counts[:, : self._n], counts[:, 4 : 4 + self._n]
        precision = np.prod((correct + TINY) / (guessed + SMALL), axis=1) ** (1 / self._n)
        ratio = (counts[:, 8] + TINY) / (counts[:, 9] + SMALL)
        brevity: Array = np.exp(np.minimum(0, 1 - 1 / ratio))
        return np.asarray(100 * precision * brevity)
