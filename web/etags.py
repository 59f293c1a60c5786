"""`ETag`, `If-None-Match` and `If-Match`: who asks again and again is told in a few bytes that
nothing has changed, and who changes something that it is no longer as they saw it (RFC 9110)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from flask import Response, request
from pydantic import BaseModel
from werkzeug.http import generate_etag

from captioning.errors import ChangedSince

P = ParamSpec("P")
Answer = BaseModel | tuple[BaseModel, int, dict[str, str]]


def conditional(view: Callable[P, Answer]) -> Callable[P, Response]:
    """Of a view that answers with what is there now: 304 where that is what the asker has. The
    tag is that of the whole body, unless the view names one. Next to the view itself: the body is
    written here, in one step, where APIFlask would take three."""

    @wraps(view)
    def answered(*args: P.args, **kwargs: P.kwargs) -> Response:
        told = view(*args, **kwargs)
        body, status, headers = told if isinstance(told, tuple) else (told, 200, {})
        response = Response(_written(body), status, headers, content_type="application/json")
        if status == 200:
            response.add_etag()
            if "If-None-Match" in request.headers:
                response.make_conditional(request)
        return response

    return answered


def tag_of(body: BaseModel) -> str:
    """The tag of an answer of which this is the whole body."""
    return generate_etag(_written(body))


def _written(body: BaseModel) -> bytes:
    return body.model_dump_json().encode()


def require_unchanged(now: BaseModel) -> None:
    """Of what the request is about to change.

    Raises: ChangedSince, when it is not what `If-Match` names.
    """
    if "If-Match" not in request.headers:
        return
    if not request.if_match.contains(tag_of(now)):
        raise ChangedSince("Read it again, and decide anew.")
