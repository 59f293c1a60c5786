"""Photographs to try the service with. Where they come from: NOTICE.md beside them."""

from __future__ import annotations

from pathlib import Path

from captioning.errors import ImageNotFound

FOLDER = Path(__file__).parent

SAMPLES = {
    "cat": "A cat",
    "astronaut": "An astronaut",
    "coffee": "A cup of coffee",
    "rocket": "A rocket",
    "photographer": "A photographer",
}
"""What each shows, for those who cannot see it."""


def read(name: str) -> bytes:
    """Raises: ImageNotFound."""
    if name not in SAMPLES:
        raise ImageNotFound(f"There is no sample photograph {name}.")
    return (FOLDER / f"{name}.jpg").read_bytes()
