"""The only table of what a failure means for a job: try again later, or fail for good."""

from __future__ import annotations

from dataclasses import dataclass

import PIL

from captioning.errors import ImageNotFound, Unavailable


@dataclass(frozen=True)
class Verdict:
    """What is said of a job that could not be captioned."""

    code: str
    message: str
    retry: bool


class CaptionInvalid(Exception):
    """The model gave a caption that no database can keep."""


_TABLE: tuple[tuple[type[BaseException], str, bool], ...] = (
    (ImageNotFound, "image_missing", False),
    (Unavailable, "unavailable", True),
    (PIL.UnidentifiedImageError, "image_unreadable", False),
    (MemoryError, "out_of_memory", True),
    (CaptionInvalid, "caption_invalid", True),  # a device in trouble gives NaN, for a while
)


def judge(error: BaseException) -> Verdict:
    """The verdict on an error; an unknown one is the model's, and may pass."""
    # A driver's words name hosts and folders.
    if isinstance(error, Unavailable) and error.__cause__:
        return Verdict("unavailable", f"{error.title()}.", True)
    for kind, code, retry in _TABLE:
        if isinstance(error, kind):
            return Verdict(code, str(error) or kind.__name__, retry)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch for it
        return Verdict("out_of_memory", "The device ran out of memory on this image.", True)
    # Its words are of our code and its folders: they are in the log.
    return Verdict("model_failed", f"The model failed: {type(error).__name__}.", True)
