"""Intervals against theory, and differences of captioners that are alike or not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipcap.evaluation.bootstrap import differences, intervals
from clipcap.evaluation.measures import Mean


def scores(seed: int, images: int = 400) -> Mean:
    return Mean(np.random.default_rng(seed).normal(0.5, 0.1, images))


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    mean = scores(0)
    found = intervals({"x": mean}, 400)["x"]
    half = 1.96 * mean.each().std() / math.sqrt(400)
    assert found.low == pytest.approx(mean.value() - half, abs=0.2 * half)
    assert found.high == pytest.approx(mean.value() + half, abs=0.2 * half)


def test_the_same_seed_gives_the_same_interval() -> None:
    measures = {"x": scores(0)}
    assert intervals(measures, 400, seed=1) == intervals(measures, 400, seed=1)
    assert intervals(measures, 400, seed=1) != intervals(measures, 400, seed=2)


def test_pairing_sees_a_difference_that_the_intervals_alone_hide() -> None:
    """Every image is half a point better: a small step beside how much images differ."""
    ours, theirs = {"x": Mean(scores(0).each() / 100 + 0.005)}, {"x": scores(0)}
    apart = intervals(ours, 400)["x"].low - intervals(theirs, 400)["x"].high
    found = differences(ours, theirs, 400)["x"]
    assert apart < 0
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.share_above == 1


def test_captioners_that_are_alike_are_not_told_apart() -> None:
    found = differences({"x": scores(1)}, {"x": scores(2)}, 400)["x"]
    assert found.low < 0 < found.high
    assert 0.025 < found.share_above < 0.975
