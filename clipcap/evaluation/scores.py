"""BLEU-4, ROUGE-L and CIDEr-D, times 100, as papers print them, without Java.

The scorers are pycocoevalcap's. Its PTB tokeniser needs Java, so both sides are lower-cased
and stripped of punctuation here instead. CIDEr-D weighs words by how rare they are in the
evaluated references: it is 0 on a single image and not comparable between different sets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clipcap.errors import ClipCapError


@dataclass(frozen=True)
class Scores:
    """Each times 100."""

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
    bleu, rouge, cider = load_scorers()
    found = {i: [normalise(text)] for i, text in enumerate(candidates)}
    wanted = {i: [normalise(text) for text in texts] for i, texts in enumerate(references)}
    bleu_scores, _ = bleu.compute_score(wanted, found, verbose=0)
    rouge_l, _ = rouge.compute_score(wanted, found)
    cider_d, _ = cider.compute_score(wanted, found)
    return Scores(100 * float(bleu_scores[3]), 100 * float(rouge_l), 100 * float(cider_d))


def load_scorers() -> tuple[Any, Any, Any]:
    """BLEU, ROUGE and CIDEr of pycocoevalcap, which only training and evaluation need.

    Raises: ClipCapError where it is not installed.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ClipCapError("scores need pycocoevalcap: pip install 'captioning[train]'") from error
    return Bleu(4), Rouge(), Cider()
