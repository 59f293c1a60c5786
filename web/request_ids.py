"""Every request has an id: the one its sender gave, or a new one. Answers and log lines say it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from apiflask import APIFlask

from captioning.logs import request_id
from captioning.models import new_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HEADER = "X-Request-ID"
IN_ENVIRON = "HTTP_X_REQUEST_ID"
PLAIN_ID = r"[A-Za-z0-9._-]{1,64}"


class RequestIds:
    """Around a WSGI application."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        given = environ.get(IN_ENVIRON, "")
        # Anything else could forge a line of the log, or fill it.
        its_id = given if re.fullmatch(PLAIN_ID, given) else new_id()

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, (HEADER, its_id)], *error)

        request_id.set(its_id)
        return self._app(environ, start)


def init_app(app: APIFlask) -> None:
    app.wsgi_app = RequestIds(app.wsgi_app)  # type: ignore[method-assign]
    app.teardown_request(_forget)


def _forget(error: BaseException | None) -> None:
    request_id.set(None)  # the thread goes on to other requests
