"""The site's own script and style, compressed: a phone fetches a third of them. Pages and answers
are not, lest the length of one tell a secret that is in it (BREACH)."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

from apiflask import APIFlask
from flask import Response, make_response, request

TEXT = {"text/css", "text/javascript", "application/javascript", "image/svg+xml"}


def init_app(app: APIFlask) -> None:
    app.view_functions["static"] = _compressing(app.view_functions["static"])


def _compressing(view: Callable[..., Any]) -> Callable[..., Response]:
    @wraps(view)
    def compressed(**parts: str) -> Response:
        return _compress(make_response(view(**parts)))

    return compressed


def _compress(response: Response) -> Response:
    if response.mimetype not in TEXT:
        return response
    response.vary.add("Accept-Encoding")
    wanted = request.method == "GET" and request.accept_encodings["gzip"] > 0
    if wanted and response.status_code == 200:
        response.direct_passthrough = False  # it is a file until somebody reads it
        response.set_data(_compressed(response.get_data()))
        response.content_encoding = "gzip"
        etag, _ = response.get_etag()
        response.set_etag(etag or "", weak=True)  # other bytes, the same thing
    return response


@lru_cache(maxsize=64)
def _compressed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)
