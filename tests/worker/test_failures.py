"""What each failure means for the job."""

from __future__ import annotations

import pytest
import torch

from captioning.errors import DatabaseUnavailable, ImageNotFound, StorageUnavailable
from worker.failures import CaptionInvalid, ImageDamaged, Then, judge


@pytest.mark.parametrize(
    ("error", "code", "then"),
    [
        (ImageNotFound("images/x.jpg"), "image_missing", Then.FAIL),
        (ImageDamaged("It is cut off."), "image_unreadable", Then.FAIL),
        (StorageUnavailable(), "unavailable", Then.RETRY),
        (DatabaseUnavailable(), "unavailable", Then.RETRY),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", Then.RETRY),
        (MemoryError(), "out_of_memory", Then.RETRY),
        (CaptionInvalid("NaN"), "caption_invalid", Then.RETRY),
        (ValueError("odd shape"), "model_failed", Then.RETRY),
    ],
)
def test_the_verdict(error: Exception, code: str, then: Then) -> None:
    verdict = judge(error)
    assert (verdict.code, verdict.then) == (code, then)
    assert verdict.message


def test_what_is_away_is_no_fault_of_the_job() -> None:
    assert judge(StorageUnavailable(), away=True).then is Then.WAIT
    assert judge(ImageNotFound("x"), away=True).then is Then.FAIL


def test_a_job_does_not_say_where_a_part_is() -> None:
    away = StorageUnavailable("Error performing GET http://minio:9000/images")
    away.__cause__ = OSError()
    assert judge(away).message == "The image store cannot be reached."


def test_a_job_does_not_quote_what_went_wrong_in_the_model() -> None:
    error = FileNotFoundError(2, "No such file", "/srv/models/secret/weights")
    assert judge(error).message == "The model failed: FileNotFoundError."
