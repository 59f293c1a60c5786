"""The only table of what a failure means for a job: try again later, or fail for good, or wait
for a part that is away."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from captioning.errors import ImageNotFound, Unavailable


class Then(Enum):
    """What is done with the job."""

    FAIL = auto()
    RETRY = auto()
    """While it has attempts left."""
    WAIT = auto()
    """For what is away: it is no fault of the job, and costs it no attempt."""


@dataclass(frozen=True)
class Verdict:
    """What is said of a job that could not be captioned."""

    code: str
    message: str
    then: Then


class ImageDamaged(Exception):
    """What the image store gave is not the image that was put there."""


class CaptionInvalid(Exception):
    """The model gave a caption that no database can keep."""


_TABLE: tuple[tuple[type[BaseException], str, Then], ...] = (
    (ImageNotFound, "image_missing", Then.FAIL),
    (Unavailable, "unavailable", Then.RETRY),  # of this image alone, see below
    (ImageDamaged, "image_unreadable", Then.FAIL),
    (MemoryError, "out_of_memory", Then.RETRY),
    (CaptionInvalid, "caption_invalid", Then.RETRY),  # a device in trouble gives NaN, for a while
)
MODEL_FAILED = "model_failed"
FATAL_CODES = (*(code for _, code, _ in _TABLE), MODEL_FAILED)
"""With which a worker may end a job."""


def judge(error: BaseException, *, away: bool = False) -> Verdict:
    """The verdict on an error; an unknown one is the model's, and may pass. `away`: whether the
    image store gives nothing at all."""
    if isinstance(error, Unavailable):
        # A driver's words name hosts and folders.
        message = f"{error.title()}." if error.__cause__ else str(error)
        return Verdict("unavailable", message, Then.WAIT if away else Then.RETRY)
    for kind, code, then in _TABLE:
        if isinstance(error, kind):
            return Verdict(code, str(error) or kind.__name__, then)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch for it
        return Verdict("out_of_memory", "The device ran out of memory on this image.", Then.RETRY)
    # Its words are of our code and its folders: they are in the log.
    return Verdict(MODEL_FAILED, f"The model failed: {type(error).__name__}.", Then.RETRY)
