"""BLEU-1 to 4, ROUGE-L and CIDEr-D, times 100, as papers print them, without Java.

The counting is pycocoevalcap's. Its PTB tokeniser needs Java, so both sides are lower-cased
and stripped of punctuation here instead. CIDEr-D weighs words by how rare they are in the
evaluated references: it is 0 on a single image and not comparable between different sets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from clipcap.errors import ClipCapError
from clipcap.evaluation.measures import Bleu, Mean, Measure

TITLES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "clip_score": "CLIPScore",
    "meteor": "METEOR",
    "spice": "SPICE",
}
"""As papers write them."""


CLIP_SCORE = "clip_score"
"""As each bundle's own CLIP sees it, so it says nothing between bundles with different ones."""


@dataclass(frozen=True)
class Scores:
    """Each times 100."""

    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l: float
    cider_d: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def normalise(caption: str) -> str:
    """Lower case, no punctuation, single spaces."""
    return " ".join(re.sub(r"[^\w\s]", " ", caption.lower().replace("'", "")).split())


def score(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Score one candidate for each image against its references.

    Raises: ClipCapError where pycocoevalcap is not installed.
    """
    return scores_of(measure(candidates, references))


def scores_of(measures: Mapping[str, Measure]) -> Scores:
    return Scores(**{field.name: measures[field.name].value() for field in fields(Scores)})


def measure(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Measure]:
    """What each image adds to each score, by the names of `Scores`.

    Raises: ClipCapError where pycocoevalcap is not installed.
    """
    cook_refs, cook_test, rouge, cider = load_scorers()
    found = {i: [normalise(text)] for i, text in enumerate(candidates)}
    wanted = {i: [normalise(text) for text in texts] for i, texts in enumerate(references)}
    counts = []
    for i, (text,) in found.items():
        cooked = cook_test(text, cook_refs(wanted[i]), eff="closest")
        counts.append([*cooked["correct"], *cooked["guess"], cooked["testlen"], cooked["reflen"]])
    bleu_counts = np.array(counts, dtype=float)
    _, rouge_l = rouge.compute_score(wanted, found)
    _, cider_d = cider.compute_score(wanted, found)
    measures: dict[str, Measure] = {f"bleu_{n}": Bleu(bleu_counts, n) for n in range(1, 5)}
    measures["rouge_l"] = Mean(np.asarray(rouge_l))
    measures["cider_d"] = Mean(np.asarray(cider_d))
    return measures


def load_scorers() -> tuple[Any, Any, Any, Any]:
    """Counting for BLEU (references, then a candidate), ROUGE and CIDEr of pycocoevalcap, which
    only training and evaluation need.

    Raises: ClipCapError where it is not installed.
    """
    try:
        from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ClipCapError("scores need pycocoevalcap: pip install 'captioning[train]'") from error
    return cook_refs, cook_test, Rouge(), Cider()
