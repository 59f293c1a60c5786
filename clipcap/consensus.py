"""Which candidate says most of what a decoder believes: the one that captions drawn from it agree
with most. What is merely the likeliest wording says less of an image than what many wordings share.

How far captions agree is measured much as CIDEr-D does, by the words and the runs of up to four
words that they have in common. Rare words weigh more.

Sources: Kumar and Byrne, "Minimum Bayes-Risk Decoding for Statistical Machine Translation", NAACL
2004; Vedantam et al., "CIDEr", arXiv 1411.5726.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from clipcap.decoder import text_of
from clipcap.ngrams import NGram, ngrams, words
from clipcap.search import Hypothesis, ended_first

LENGTH_SIGMA = 6.0
"""Words by which captions may differ in length before they hardly agree any more."""
BYTES = 256
"""Tokens of a byte-level tokenizer that are no merges."""
REMEMBERED = 100_000
"""Weights."""


@dataclass(frozen=True)
class _Weighed:
    """The runs of a caption by their length, their weights squared, and the norm of each length."""

    runs: list[set[NGram]]
    norms: list[float]
    words: int


class Consensus:
    """Word weights from the order of a byte-level BPE's merges: it begins with what is most
    frequent, and by Zipf's law a frequency is as the inverse of its place."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._rarity = lru_cache(REMEMBERED)(self._nats)
        self._weight = lru_cache(REMEMBERED)(self._squared_weight)

    def rank(
        self, found: Sequence[list[Hypothesis]], drawn: Sequence[list[Hypothesis]]
    ) -> list[list[Hypothesis]]:
        """The candidates of each image anew, best first, by what was drawn for it."""
        return [
            ended_first(
                candidates[place]
                for place in self.order(self._texts(candidates), self._texts(others))
            )
            for candidates, others in zip(found, drawn, strict=True)
        ]

    def order(self, candidates: Sequence[str], drawn: Sequence[str]) -> list[int]:
        """The places of the candidates, that with which the drawn captions agree most first."""
        others = [self._weigh(text) for text in drawn]
        agreed = [
            sum(self._agreement(weighed, other) for other in others)
            for weighed in map(self._weigh, candidates)
        ]
        return sorted(range(len(candidates)), key=lambda place: -agreed[place])

    def _texts(self, hypotheses: list[Hypothesis]) -> list[str]:
        return [text_of(self._tokenizer, one.token_ids) for one in hypotheses]

    def _agreement(self, a: _Weighed, b: _Weighed) -> float:
        """From 0 to 4, of captions that are the same."""
        total = 0.0
        for runs, others, norm, other in zip(a.runs, b.runs, a.norms, b.norms, strict=True):
            shared = runs & others
            if shared:
                total += sum(map(self._weight, shared)) / (norm * other)
        return total * math.exp(-((a.words - b.words) ** 2) / (2 * LENGTH_SIGMA**2))

    def _weigh(self, text: str) -> _Weighed:
        runs = ngrams(text)
        norms = [math.sqrt(sum(map(self._weight, found))) for found in runs]
        return _Weighed(runs, norms, len(words(text)))

    def _squared_weight(self, run: NGram) -> float:
        return float(sum(self._rarity(word) for word in run) ** 2)

    def _nats(self, word: str) -> float:
        """About how many nats it would take to say the word, were there no image. Never 0, not even
        where the tokenizer knows no letter of it, as of a capital that it has not seen small."""
        ids = self._tokenizer.encode(f" {word}", add_special_tokens=False)
        return sum(math.log(2 + max(0, token - BYTES)) for token in ids or [0])
