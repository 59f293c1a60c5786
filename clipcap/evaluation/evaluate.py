"""Captions a set of images and measures the best candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from clipcap.captioner import Captioner
from clipcap.data import Example
from clipcap.evaluation.measures import Measure
from clipcap.evaluation.scores import Scores, measure
from clipcap.options import DecodingOptions


@dataclass(frozen=True)
class Evaluation:
    """What was said of each image, in the order of the examples, and how good it is."""

    captions: tuple[str, ...]
    measures: dict[str, Measure]
    """By the names of `Scores`."""

    @property
    def scores(self) -> Scores:
        return Scores(**{name: found.value() for name, found in self.measures.items()})


def evaluate(
    captioner: Captioner,
    examples: Sequence[Example],
    options: DecodingOptions | None = None,
    *,
    batch_size: int = 32,
) -> Evaluation:
    """Raises: DataError, naming the image that cannot be read."""
    captions: list[str] = []
    with tqdm(total=len(examples), desc="captioning", unit="image") as bar:
        for start in range(0, len(examples), batch_size):
            batch = examples[start : start + batch_size]
            found = captioner.caption([example.image.open() for example in batch], options)
            captions += [candidates[0].text for candidates in found]
            bar.update(len(batch))
    references = [example.captions for example in examples]
    return Evaluation(tuple(captions), measure(captions, references))
