"""What an evaluation found, as JSON: captions in the form that COCO's tools read, and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from clipcap.data import Example
from clipcap.evaluation.bootstrap import Interval
from clipcap.evaluation.evaluate import Evaluation


def caption_results(
    examples: Sequence[Example], captions: Sequence[str]
) -> list[dict[str, str | int]]:
    """`[{"image_id": 42, "file_name": …, "caption": …}]`; without `image_id` where the data
    gives no number."""
    rows = []
    for example, caption in zip(examples, captions, strict=True):
        row: dict[str, str | int] = {"file_name": example.image.name, "caption": caption}
        if example.image_id is not None:
            row["image_id"] = example.image_id
        rows.append(row)
    return rows


def score_results(
    evaluation: Evaluation, intervals: Mapping[str, Interval], extra: Mapping[str, float]
) -> dict[str, Any]:
    """Each score times 100, and the 95 % interval of those that have one."""
    return {
        **{name: measure.value() for name, measure in evaluation.measures.items()},
        **extra,
        "intervals": {name: asdict(interval) for name, interval in intervals.items()},
    }
