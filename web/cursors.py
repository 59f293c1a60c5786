"""Opaque places in a list that is read from newest to oldest."""

from __future__ import annotations

import base64
import binascii

from captioning.errors import InvalidOption


def encode(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    """The id of the last row that was shown. Raises: InvalidOption."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError) as error:
        raise InvalidOption("cursor is none that was given out here.") from error
