"""A corpus of odd and hostile files through the intake: each has its outcome, and none costs
memory that is not given back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from captioning.errors import ImageRejected
from captioning.images import normalise
from tests.hostile import SCRIPT, Outcome, corpus

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

FILES = {name: (data, outcome) for name, data, outcome in corpus()}


def test_the_corpus_is_as_large_as_its_names() -> None:
    assert len(FILES) == len(corpus()) >= 80


@pytest.mark.parametrize("name", FILES)
def test_it_has_its_outcome(name: str) -> None:
    data, expected = FILES[name]
    found: Outcome
    try:
        taken = normalise(data, max_bytes=20_000_000, max_pixels=40_000_000)
    except ImageRejected as error:
        found = error.code
    else:
        found = (taken.width, taken.height)
        assert SCRIPT not in taken.jpeg + taken.thumbnail
        assert taken.jpeg.startswith(b"\xff\xd8\xff\xe0")
    assert found == expected


ROUNDS = """
import warnings
import psutil
from captioning.errors import ImageRejected
from captioning.images import normalise
from tests.hostile import corpus
warnings.simplefilter("ignore")
files = corpus()
for _ in range(4):
    for _, data, _ in files:
        try:
            normalise(data, max_bytes=20_000_000, max_pixels=40_000_000)
        except ImageRejected:
            pass
    print(psutil.Process().memory_info().rss // 1_000_000)
"""


@pytest.mark.slow
def test_memory_stays_flat_over_rounds_of_the_corpus() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", ROUNDS]
    done = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True)
    first, *_, last = map(int, done.stdout.split())
    assert last - first < 20
