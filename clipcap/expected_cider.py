"""The CIDEr that a caption of an image can be expected to have, told from the image's embedding.

CIDEr is the mean, over what people say of an image, of how far a caption's weighed n-grams point
where theirs do. That is linear in theirs: whoever knows their mean knows the expected CIDEr of
any caption, without having a single one of theirs. A small network guesses that mean. To rank
candidates by what can be expected of them is minimum Bayes risk decoding, as in
clipcap/consensus.py, but with nothing drawn.

Sources: Vedantam et al., "CIDEr", arXiv 1411.5726; Kumar and Byrne, "Minimum Bayes-Risk Decoding
for Statistical Machine Translation", NAACL 2004; the network is a reduced-rank regression, Izenman,
Journal of Multivariate Analysis 5 (1975), on features that are learned.

Axes: B images, D CLIP width, H hidden, R rank, G n-grams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from clipcap.decoder import text_of
from clipcap.ngrams import LENGTHS, NGram, ngrams, words
from clipcap.search import Hypothesis, ended_first

UNIT = 1 / 1280
"""What an expected weight is measured in: the numbers that it is made of are near 1 then, where
formats of little precision are finest."""
WORDS_APART = 6.7
"""Words by which a caption may differ from the expected length before it can hardly score: the 6 of
CIDEr-D, and what people's captions of one image differ by."""


class ExpectedCiderConfig(BaseModel):
    """What bundle.json says of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embedding_dim: int = Field(gt=0)
    hidden: int = Field(gt=0)
    rank: int = Field(gt=0)


class Weighing:
    """How much each n-gram of a caption weighs: the rarer, the more. The squares of those of one
    length sum up to 1, so that single words count as much as runs of four."""

    def __init__(self, rarity: Mapping[NGram, float], others: Sequence[float]) -> None:
        """In nats: those of the n-grams that are known, and of others by their length."""
        self._rarity, self._others = rarity, others

    def __call__(self, text: str) -> dict[NGram, float]:
        weights: dict[NGram, float] = {}
        for found, other in zip(ngrams(text), self._others, strict=True):
            raw = {ngram: self._rarity.get(ngram, other) for ngram in found}
            # fsum: a set's order differs from process to process, and so would other sums.
            norm = math.sqrt(math.fsum(weight**2 for weight in raw.values())) or 1.0
            weights.update((ngram, weight / norm) for ngram, weight in raw.items())
        return weights


class ExpectedCider(nn.Module):
    """Guesses what weights the n-grams of an image's captions have in the mean, and how many words
    those captions."""

    mean: Tensor
    deviation: Tensor
    usual: Tensor
    basis: Tensor
    rarity: Tensor
    others: Tensor

    def __init__(self, config: ExpectedCiderConfig, listed: Sequence[NGram]) -> None:
        super().__init__()
        self.config = config
        self.listed = tuple(listed)
        self.hidden = nn.Linear(config.embedding_dim, config.hidden)
        self.direction = nn.Linear(config.hidden, config.rank)
        self.words = nn.Linear(config.hidden, 1)
        self.dropout = nn.Dropout(0.0)
        self.register_buffer("mean", torch.zeros(config.embedding_dim))
        self.register_buffer("deviation", torch.ones(config.embedding_dim))
        self.register_buffer("usual", torch.zeros(len(self.listed)))
        self.register_buffer("basis", torch.zeros(config.rank, len(self.listed)))
        self.register_buffer("rarity", torch.ones(len(self.listed)))
        self.register_buffer("others", torch.ones(len(LENGTHS)))

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: embedding `(B, D)` → how far to go in each direction of the basis `(B, R)`, and
        expected words `(B,)`."""
        standard = self.dropout((embedding - self.mean) / self.deviation)
        hidden = self.dropout(nn.functional.gelu(self.hidden(standard)))
        return self.direction(hidden), self.words(hidden).squeeze(1)

    def expect(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: embedding `(B, D)` → expected weights `(B, G)` and words `(B,)`."""
        direction, count = self(embedding)
        return (self.usual + direction @ self.basis) * UNIT, count


class Expectations:
    """What `ExpectedCider` says of captions."""

    def __init__(self, network: ExpectedCider, tokenizer: PreTrainedTokenizerBase) -> None:
        """The network is not to learn any more."""
        self._network, self._tokenizer = network, tokenizer
        self._place = {ngram: place for place, ngram in enumerate(network.listed)}
        rarity = zip(network.listed, network.rarity.tolist(), strict=True)
        self._weigh = Weighing(dict(rarity), network.others.tolist())

    def rank(self, found: Sequence[list[Hypothesis]], embedding: Tensor) -> list[list[Hypothesis]]:
        """The candidates of each image anew, that with the highest CIDEr to be expected first.

        Shapes: embedding `(B, D)`.
        """
        texts = [[text_of(self._tokenizer, one.token_ids) for one in of_one] for of_one in found]
        return [
            ended_first(
                candidate
                for _, candidate in sorted(
                    zip(scores, candidates, strict=True), key=lambda pair: -pair[0]
                )
            )
            for scores, candidates in zip(self.scores(embedding, texts), found, strict=True)
        ]

    @torch.inference_mode()
    def scores(self, embedding: Tensor, texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """The CIDEr-D that can be expected of some captions of each image. 10 is the highest.

        Shapes: embedding `(B, D)`, of B lists of texts.
        """
        weights, counts = self._network.expect(embedding)
        return [
            [self._score(text, expected, count) for text in of_one]
            for of_one, expected, count in zip(
                texts, weights.cpu().numpy(), counts.tolist(), strict=True
            )
        ]

    def _score(self, text: str, expected: Sequence[float], count: float) -> float:
        agreed = math.fsum(
            weight * expected[self._place[ngram]]
            for ngram, weight in self._weigh(text).items()
            if ngram in self._place
        )
        apart = len(words(text)) - count
        return float(10 * agreed / len(LENGTHS) * math.exp(-(apart**2) / (2 * WORDS_APART**2)))
