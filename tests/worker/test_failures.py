"""What each failure means for the job."""

from __future__ import annotations

import PIL
import pytest
import torch

from captioning.errors import DatabaseUnavailable, ImageNotFound, StorageUnavailable
from worker.failures import CaptionInvalid, judge


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (ImageNotFound("images/x.jpg"), "image_missing", False),
        (PIL.UnidentifiedImageError("cannot identify"), "image_unreadable", False),
        (StorageUnavailable(), "unavailable", True),
        (DatabaseUnavailable(), "unavailable", True),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", True),
        (MemoryError(), "out_of_memory", True),
        (CaptionInvalid("NaN"), "caption_invalid", True),
        (ValueError("odd shape"), "model_failed", True),
    ],
)
def test_the_verdict(error: Exception, code: str, retry: bool) -> None:
    verdict = judge(error)
    assert (verdict.code, verdict.retry) == (code, retry)
    assert verdict.message


def test_a_job_does_not_say_where_a_part_is() -> None:
    away = StorageUnavailable("Error performing GET http://minio:9000/images")
    away.__cause__ = OSError()
    assert judge(away).message == "The image store cannot be reached."


def test_a_job_does_not_quote_what_went_wrong_in_the_model() -> None:
    error = FileNotFoundError(2, "No such file", "/srv/models/secret/weights")
    assert judge(error).message == "The model failed: FileNotFoundError."
