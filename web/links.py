"""Addresses of what has an id. Building one takes Flask longer than reading what it leads to, so
each is built once, for an id that is replaced."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from flask import request, url_for

PLACE = "0" * 32


def link(endpoint: str, name: str, value: str) -> str:
    """`url_for(endpoint, **{name: value})`, for an id in hex."""
    return _pattern(request.root_path, endpoint, name).replace(PLACE, value)


@lru_cache  # below the path that a proxy may have taken away
def _pattern(root_path: str, endpoint: str, name: str) -> str:
    ids: dict[str, Any] = {name: PLACE}
    return url_for(endpoint, **ids)
