"""`ETag` and `If-None-Match`: who asks again and again is told in a few bytes that nothing has
changed (RFC 9110)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from flask import Response, current_app, request

P = ParamSpec("P")


def conditional(view: Callable[P, Any]) -> Callable[P, Response]:
    """Of a view that answers with what is there now: 304 where that is what the asker has."""

    @wraps(view)
    def answered(*args: P.args, **kwargs: P.kwargs) -> Response:
        response: Response = current_app.make_response(view(*args, **kwargs))
        if response.status_code == 200:
            response.add_etag()
            response.make_conditional(request)
        return response

    return answered
