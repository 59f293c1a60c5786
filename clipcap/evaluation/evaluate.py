"""Captions a set of images and measures the best candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from clipcap.captioner import Caption, Captioner
from clipcap.data import Example
from clipcap.evaluation.measures import Mean, Measure
from clipcap.evaluation.scores import CLIP_SCORE, Scores, measure, scores_of
from clipcap.options import DecodingOptions


@dataclass(frozen=True)
class Evaluation:
    """What was said of each image, in the order of the examples, and how good it is."""

    captions: tuple[str, ...]
    measures: dict[str, Measure]
    """By the names of `Scores`; and CLIPScore where the bundle's CLIP reads text."""

    @property
    def scores(self) -> Scores:
        return scores_of(self.measures)


def evaluate(
    captioner: Captioner,
    examples: Sequence[Example],
    options: DecodingOptions | None = None,
    *,
    batch_size: int = 32,
) -> Evaluation:
    """Raises: DataError, naming the image that cannot be read."""
    best: list[Caption] = []
    with tqdm(total=len(examples), desc="captioning", unit="image") as bar:
        for start in range(0, len(examples), batch_size):
            batch = examples[start : start + batch_size]
            found = captioner.caption([example.image.open() for example in batch], options)
            best += [candidates[0] for candidates in found]
            bar.update(len(batch))
    captions = tuple(caption.text for caption in best)
    measures = measure(captions, [example.captions for example in examples])
    fits = [caption.clip_score for caption in best if caption.clip_score is not None]
    if len(fits) == len(best):
        measures[CLIP_SCORE] = Mean(np.array(fits))
    return Evaluation(captions, measures)
