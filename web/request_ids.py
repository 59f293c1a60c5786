"""Every request has an id: the one its sender gave, or a new one. Answers and log lines say it."""

from __future__ import annotations

import re

from apiflask import APIFlask
from flask import Response, request

from captioning.logs import request_id
from captioning.models import new_id

HEADER = "X-Request-ID"
PLAIN_ID = r"[A-Za-z0-9._-]{1,64}"


def init_app(app: APIFlask) -> None:
    app.before_request(_take)
    app.after_request(_tell)
    app.teardown_request(_forget)


def _take() -> None:
    given = request.headers.get(HEADER, "")
    # Anything else could forge a line of the log, or fill it.
    request_id.set(given if re.fullmatch(PLAIN_ID, given) else new_id())


def _tell(response: Response) -> Response:
    response.headers[HEADER] = request_id.get() or ""
    return response


def _forget(error: BaseException | None) -> None:
    request_id.set(None)  # the thread goes on to other requests
