"""Brings together the captions of one photograph in captions that are told without photographs.

Flickr30k's captions come as five lists, one caption of each photograph in each, in the same order
of photographs; some are left out here and there, so a photograph is not at the same place of each
list. Two lists are laid beside each other as texts with changes are: of all ways to pair their
captions in order, that whose pairs have most words in common, rare words most. Captions between
two pairs that are equally far apart in both lists are pairs, too. What is left stays alone.

    python recipes/group_captions.py TEXTS OUT_FILE
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from clipcap.data.texts import json_lines

SOURCE = "flickr30k"
STARTS = (0, 27330, 54610, 81920, 109190)
"""Roughly where the lists begin: seen from where captions like the first ones stand."""
DRIFT = 700
"""How far from where it is expected a caption is looked for."""
LEAST_ALIKE = 0.18
LONGEST_GAP = 12
WORDS = 8000
WIDTH = 768
ENDINGS = ("ing", "es", "s", "ed")
PAIR, SKIP_FIRST, SKIP_OTHER = range(3)


def word_features(captions: Sequence[str]) -> Tensor:
    """Of which the products are how alike captions are, 1 at most: `(N, WIDTH)`. Words weigh by
    their rarity, and are thrown at random into fewer dimensions."""
    words = [{_stem(word) for word in re.findall(r"[a-z']+", c.lower())} for c in captions]
    counts = Counter(word for found in words for word in found)
    number = {word: i for i, (word, _) in enumerate(counts.most_common(WORDS))}
    rarity = torch.tensor([math.log(len(captions) / counts[word]) for word in number])
    directions = torch.randn(len(number), WIDTH, generator=torch.Generator().manual_seed(0))
    directions *= rarity[:, None] / math.sqrt(WIDTH)
    owners = torch.tensor([i for i, found in enumerate(words) for w in found if w in number])
    ids = torch.tensor([number[w] for found in words for w in found if w in number])
    features = torch.zeros(len(words), WIDTH).index_add(0, owners, directions[ids])
    lengths = torch.zeros(len(words)).index_add(0, owners, rarity[ids].square()).sqrt()
    return features / lengths.clamp_min(1e-6)[:, None]


def _stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def pair(features: Tensor, length: int, start: int) -> dict[int, int]:
    """The places of the captions that go with the first `length` ones, in a list from about
    `start` on. Shapes: features `(N, D)`.

    Column j of row i stands for place `start` + i + j - DRIFT, and holds the most that pairs up to
    there can have in common: the next row's same column is a pair further on.
    """
    columns = torch.arange(2 * DRIFT + 1)
    moves = torch.zeros(length, len(columns), dtype=torch.int8)
    most = torch.zeros(len(columns))
    for i in range(length):
        places = (start + i - DRIFT + columns).clamp(0, len(features) - 1)
        paired = most + features[places] @ features[i] - LEAST_ALIKE
        skipped = torch.cat([most[1:], torch.tensor([-math.inf])])
        most, ends = torch.maximum(paired, skipped).cummax(dim=0)
        moves[i] = torch.where(skipped > paired, SKIP_FIRST, PAIR)
        moves[i][ends != columns] = SKIP_OTHER
    i, j = length - 1, int(most.argmax())
    found = {}
    while i >= 0 and 0 <= j < len(columns):
        move = int(moves[i, j])
        if move == PAIR:
            found[i] = start + i + j - DRIFT
        i -= int(move != SKIP_OTHER)
        j += 1 if move == SKIP_FIRST else -1 if move == SKIP_OTHER else 0
    return found


def fill(pairs: dict[int, int]) -> dict[int, int]:
    """With what lies between two pairs that are equally far apart in both lists."""
    filled = dict(pairs)
    known = sorted(pairs.items())
    for (i, place), (k, other) in pairwise(known):
        if other - place == k - i <= LONGEST_GAP:
            filled |= {i + n: place + n for n in range(1, k - i)}
    return filled


def group(captions: Sequence[str]) -> list[list[str]]:
    """Captions of one photograph together, in the order of the first list; then all others."""
    features = word_features(captions)
    groups = [[place] for place in range(STARTS[1])]
    for start in STARTS[1:]:
        for i, place in fill(pair(features, len(groups), start)).items():
            groups[i].append(place)
    grouped = {place for places in groups for place in places}
    groups += [[place] for place in range(len(captions)) if place not in grouped]
    return [[captions[place] for place in places] for places in groups]


def main(texts: Path, out: Path) -> None:
    rows = [row for _, row in json_lines(texts)]
    groups = group([row["caption"] for row in rows if row["source"] == SOURCE])
    groups += [[row["caption"]] for row in rows if row["source"] != SOURCE]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps({"captions": captions}) + "\n" for captions in groups))
    sizes = Counter(map(len, groups))
    print(
        f"{len(groups)} groups:", ", ".join(f"{n} of {size}" for size, n in sorted(sizes.items()))
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
