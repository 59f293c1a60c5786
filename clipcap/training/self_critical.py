"""Self-critical training: captions are sampled, and those that score a higher CIDEr-D than
their fellows are made likelier.

Source: Rennie et al., "Self-critical Sequence Training for Image Captioning", arXiv 1612.00563;
the mean of the other samples as the baseline: Luo, "A Better Variant of Self-Critical Sequence
Training", arXiv 2003.09971; CIDEr-D: Vedantam et al., arXiv 1411.5726.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from clipcap.evaluation.scores import normalise
from clipcap.search import begin
from clipcap.training.captions import IGNORED
from clipcap.training.model import PrefixLanguageModel, token_log_probabilities

LONGEST_NGRAM = 4
LENGTH_SIGMA = 6.0
WEIGHED_IMAGES = 64
"""Whose references are kept: the samples of one image follow each other."""
END = "</s>"
"""Counted as a word, or captions learn to break off before the end."""

NGram = tuple[str, ...]


class CiderReward:
    """CIDEr-D of a caption against an image's references, its word weights from all of them."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self._texts = references
        self._frequency: Counter[NGram] = Counter()
        for texts in references:
            self._frequency.update({ngram for text in texts for ngram in _count_ended(text)})
        self._log_images = math.log(max(2, len(references)))
        self._references = lru_cache(WEIGHED_IMAGES)(self._weighed)

    def score(self, image: int, caption: str, *, ended: bool) -> float:
        """`ended`: whether the caption came to its end or was cut. 10 is the highest score."""
        found = self._weigh(_count([*_words(caption), *[END] * ended]))
        references = self._references(image)
        return 10 * sum(_similarity(found, wanted) for wanted in references) / len(references)

    def _weighed(self, image: int) -> list[_Weighed]:
        """When they are asked for: the references of all of COCO would take five gigabytes."""
        return [self._weigh(_count_ended(text)) for text in self._texts[image]]

    def _weigh(self, counts: Counter[NGram]) -> _Weighed:
        weights = {
            ngram: count * (self._log_images - math.log(max(1, self._frequency[ngram])))
            for ngram, count in counts.items()
        }
        norms = [0.0] * LONGEST_NGRAM
        for ngram, weight in weights.items():
            norms[len(ngram) - 1] += weight**2
        words = sum(count for ngram, count in counts.items() if len(ngram) == 1)
        return _Weighed(weights, [math.sqrt(norm) for norm in norms], words)


class _Weighed:
    """A text as weighed n-grams, with the norm of each order."""

    __slots__ = ("norms", "weights", "words")

    def __init__(self, weights: dict[NGram, float], norms: list[float], words: int) -> None:
        self.weights = weights
        self.norms = norms
        self.words = words


def _words(text: str) -> list[str]:
    return normalise(text).split()


def _count_ended(text: str) -> Counter[NGram]:
    return _count([*_words(text), END])


def _count(words: list[str]) -> Counter[NGram]:
    return Counter(
        tuple(words[i : i + n])
        for n in range(1, LONGEST_NGRAM + 1)
        for i in range(len(words) - n + 1)
    )


def _similarity(found: _Weighed, wanted: _Weighed) -> float:
    """The mean over orders of the clipped cosine, times the penalty for another length."""
    overlaps = [0.0] * LONGEST_NGRAM
    for ngram, weight in found.weights.items():
        other = wanted.weights.get(ngram)
        if other is not None:
            overlaps[len(ngram) - 1] += min(weight, other) * other
    cosines = [
        overlap / (a * b) if a and b else 0.0
        for overlap, a, b in zip(overlaps, found.norms, wanted.norms, strict=True)
    ]
    penalty = math.exp(-((found.words - wanted.words) ** 2) / (2 * LENGTH_SIGMA**2))
    return penalty * sum(cosines) / LONGEST_NGRAM


@torch.inference_mode()
def sample(
    module: PrefixLanguageModel, embedding: Tensor, *, samples: int, stop_id: int, max_tokens: int
) -> Tensor:
    """Draw captions from the model: targets `(B·samples, T)`, the stop token included, padded
    with IGNORED; the samples of one image are neighbours.

    Shapes: embedding `(B, D)`.
    """
    cached = begin(module.decoder, max_tokens)
    log_probabilities = cached.read_prefix(module.mapper(embedding))
    rows = torch.arange(len(embedding), device=embedding.device).repeat_interleave(samples)
    log_probabilities = log_probabilities[rows]
    drawn = torch.full((len(rows), max_tokens), IGNORED, device=embedding.device)
    running = torch.arange(len(rows), device=embedding.device)  # the captions not ended yet
    for position in range(max_tokens):
        tokens = torch.multinomial(log_probabilities.exp(), 1).squeeze(1)
        drawn[running, position] = tokens
        going = (tokens != stop_id).nonzero().squeeze(1)
        if not len(going) or position + 1 == max_tokens:
            break
        running = running[going]
        log_probabilities = cached.step(rows[going], tokens[going])
        rows = torch.arange(len(going), device=embedding.device)
    return drawn[:, : position + 1]


def self_critical_loss(
    module: PrefixLanguageModel, embedding: Tensor, targets: Tensor, rewards: Tensor
) -> Tensor:
    """Shapes: embedding `(B, D)`, targets `(B·S, T)`, rewards `(B, S)`."""
    count = rewards.shape[1]
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (count - 1)
    advantage = (rewards - others).flatten()  # (B·S)
    prefix = module.mapper(embedding).repeat_interleave(count, dim=0)
    log_probabilities = token_log_probabilities(module.decoder, prefix, targets)
    kept = targets != IGNORED
    return -(advantage[:, None] * log_probabilities)[kept].mean()
