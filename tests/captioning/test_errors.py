"""Codes are what clients hold on to; titles are what people read."""

from __future__ import annotations

import pytest

import captioning.queue  # noqa: F401  (AllRejected is defined there)
from captioning.errors import CaptioningError


def _tree(root: type[CaptioningError]) -> list[type[CaptioningError]]:
    return [root, *(cls for child in root.__subclasses__() for cls in _tree(child))]


ERRORS = _tree(CaptioningError)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in ERRORS]
    assert len(set(codes)) == len(codes)
    assert len(codes) >= 20


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_a_title_of_its_own(error: type[CaptioningError]) -> None:
    assert error.__doc__ != CaptioningError.__doc__ or error is CaptioningError
    assert "code" in vars(error)
    assert error.title()
    assert not error.title().endswith(".")
    assert "\n" not in error.title()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_a_code_is_a_plain_word(error: type[CaptioningError]) -> None:
    assert error.code.replace("_", "").isalpha()
    assert error.code == error.code.lower()


def test_an_error_without_a_message_says_its_title() -> None:
    assert str(CaptioningError()) == "Something went wrong"
    assert str(CaptioningError("the roof is on fire")) == "the roof is on fire"
