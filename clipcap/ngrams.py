"""What captions are compared by: their words, and the runs of up to four words."""

from __future__ import annotations

import re

LENGTHS = (1, 2, 3, 4)

NGram = tuple[str, ...]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def ngrams(text: str) -> list[set[NGram]]:
    """Those of each length, each once."""
    found = words(text)
    return [set(zip(*[found[i:] for i in range(n)], strict=False)) for n in LENGTHS]
