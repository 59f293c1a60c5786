"""How far scores would have moved on another sample of images: 95 % intervals, by drawing the
images again with replacement. The same seed draws the same images, so two captioners are
compared on the same draws.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13 (percentile
intervals); paired for two systems as in Koehn, "Statistical Significance Tests for Machine
Translation Evaluation", EMNLP 2004.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from clipcap.evaluation.measures import Array, Measure
from clipcap.evaluation.scores import CLIP_SCORE

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """95 % of the resamples lie between these."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One score of a captioner less the same score of another, on the same images."""

    value: float
    low: float
    high: float
    share_above: float
    """The share of resamples in which the first was the better one."""

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def intervals(
    measures: Mapping[str, Measure], images: int, *, seed: int = 0
) -> dict[str, Interval]:
    """By the name of each score."""
    drawn = _resample(measures, images, seed)
    return {
        name: Interval(*map(float, np.percentile(drawn[:, column], PERCENTILES)))
        for column, name in enumerate(measures)
    }


def differences(
    ours: Mapping[str, Measure], theirs: Mapping[str, Measure], images: int, *, seed: int = 0
) -> dict[str, Difference]:
    """By the name of each score that both have and that means the same of both. Both must be of
    the same images in the same order."""
    both = [name for name in ours if name in theirs and name != CLIP_SCORE]
    ours, theirs = ({name: side[name] for name in both} for side in (ours, theirs))
    drawn = _resample(ours, images, seed) - _resample(theirs, images, seed)
    found = {}
    for column, name in enumerate(ours):
        low, high = map(float, np.percentile(drawn[:, column], PERCENTILES))
        value = ours[name].value() - theirs[name].value()
        found[name] = Difference(value, low, high, float((drawn[:, column] > 0).mean()))
    return found


def _resample(measures: Mapping[str, Measure], images: int, seed: int) -> Array:
    """Each score of each resample: `(RESAMPLES, scores)`."""
    random = np.random.default_rng(seed)
    even = np.full(images, 1 / images)
    rows = []
    for _ in range(RESAMPLES):
        weights = random.multinomial(images, even).astype(float)
        rows.append([measure.value(weights) for measure in measures.values()])
    return np.array(rows)
