"""The recipe that brings the captions of one photograph together."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
import group_captions

PHOTOGRAPHS = 300


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, str]]]:
    """Five captions of each photograph, a list for each; some are missing here and there."""
    draw = random.Random(0)  # noqa: S311 (no secret)
    words = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(600)]
    subjects = [draw.sample(words, 4) for _ in range(PHOTOGRAPHS)]
    lists = [
        [
            (i, " ".join(["a", *draw.sample(subject, 3), draw.choice(words)]))
            for i, subject in enumerate(subjects)
            if draw.random() > 0.03
        ]
        for _ in range(5)
    ]
    starts = [sum(len(captions) for captions in lists[:n]) for n in range(5)]
    roughly = [starts[0], starts[1], *(start + draw.randint(-9, 9) for start in starts[2:])]
    monkeypatch.setattr(group_captions, "STARTS", tuple(roughly))
    monkeypatch.setattr(group_captions, "DRIFT", 40)
    return lists


def test_captions_of_one_photograph_are_found(lists: list[list[tuple[int, str]]]) -> None:
    captions = [caption for told in lists for _, caption in told]
    photographs = [photograph for told in lists for photograph, _ in told]
    groups = group_captions.group(captions)
    assert sorted(c for found in groups for c in found) == sorted(captions)
    owners = dict(zip(captions, photographs, strict=True))
    right = sum(len(found) > 1 and len({owners[c] for c in found}) == 1 for found in groups)
    wrong = sum(len({owners[c] for c in found}) > 1 for found in groups)
    assert right > 0.9 * PHOTOGRAPHS
    assert wrong < 0.02 * PHOTOGRAPHS


def test_what_lies_between_two_pairs_is_paired_where_nothing_is_missing() -> None:
    assert group_captions.fill({0: 5, 3: 8, 5: 11}) == {0: 5, 1: 6, 2: 7, 3: 8, 5: 11}
