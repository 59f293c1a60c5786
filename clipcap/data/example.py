"""What every format is read into: an image with its captions, and what reading found wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from clipcap.data.pictures import Picture
from clipcap.errors import DataError


@dataclass(frozen=True)
class Example:
    """One image and its reference captions. `image_id` is the number that COCO knows it by."""

    image: Picture
    captions: tuple[str, ...]
    image_id: int | None = None


@dataclass(frozen=True)
class Splits:
    """What is trained on and what is only measured on."""

    train: list[Example]
    dev: list[Example]


class Findings:
    """What a reader says of a set as it goes. This one refuses a set at its first problem;
    `clipcap data check` collects them all."""

    def problem(self, message: str) -> None:
        """Raises: DataError."""
        raise DataError(message)

    def left_out(self, message: str) -> None:
        """Something that training does well without."""


REFUSE = Findings()


def is_text(text: str) -> bool:
    """Whether it can be encoded: JSON may hold half of an emoji that was cut in two."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_words(captions: Iterable[str], where: str, findings: Findings) -> tuple[str, ...]:
    """The captions that hold a word at all."""
    captions = tuple(captions)
    if not all(map(is_text, captions)):
        findings.problem(f"{where}: a caption holds half of a character (a lone surrogate)")
        return ()
    kept = tuple(caption for caption in captions if re.search(r"\w", caption))
    if kept and len(kept) < len(captions):
        findings.left_out(f"{where}: {len(captions) - len(kept)} captions without a word")
    return kept
