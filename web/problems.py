"""Errors as answers: the only table from error types to HTTP statuses.

Programs get RFC 9457 `application/problem+json` with a stable `code`, people get a page.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

from apiflask import APIFlask, HTTPError
from flask import Response, render_template, request
from werkzeug.exceptions import HTTPException

from captioning import errors
from captioning.queue import AllRejected

logger = logging.getLogger(__name__)

STATUSES: dict[type[Exception], HTTPStatus] = {
    errors.CaptioningError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NoImage: HTTPStatus.BAD_REQUEST,
    errors.TooManyImages: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ImageRejected: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageEmpty: HTTPStatus.BAD_REQUEST,
    errors.ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedImageType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.AccessDenied: HTTPStatus.UNAUTHORIZED,
    errors.LimitReached: HTTPStatus.TOO_MANY_REQUESTS,
    errors.WrongState: HTTPStatus.CONFLICT,
    errors.ChangedSince: HTTPStatus.PRECONDITION_FAILED,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""A type that is not named has the status of its nearest base."""

RETRY_AFTER_S: dict[type[Exception], int] = {
    errors.Unavailable: 5,
    errors.QueueFull: 30,
    errors.StorageFull: 60,
}
"""When to come back, as told to programs that are refused for now."""

NAMESPACE = "urn:captioning:problem:"

FOR_PROGRAMS = ("/api/", "/model/")
"""Where paths of programs begin. Everything else is for people."""


@dataclass(frozen=True)
class Problem:
    """One error, as it is told. `extra` holds members beyond those of RFC 9457."""

    status: int
    code: str
    title: str
    detail: str
    extra: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def init_app(app: APIFlask) -> None:
    # On the app: a blueprint's handlers miss what goes wrong in routing.
    app.register_error_handler(errors.CaptioningError, lambda error: answer(of_domain(error)))
    app.register_error_handler(HTTPException, lambda error: answer(of_werkzeug(error)))
    app.register_error_handler(HTTPError, lambda error: answer(of_validation(error)))


def of_domain(error: errors.CaptioningError) -> Problem:
    kinds = type(error).__mro__
    status = next(STATUSES[kind] for kind in kinds if kind in STATUSES)
    extra = {}
    if isinstance(error, AllRejected):
        extra["rejected"] = [asdict(rejection) for rejection in error.rejected]
    headers = {}
    if isinstance(error, errors.Unavailable):
        retry_after_s = next(RETRY_AFTER_S[kind] for kind in kinds if kind in RETRY_AFTER_S)
        headers["Retry-After"] = str(retry_after_s)
    if isinstance(error, errors.LimitReached):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.AccessDenied):
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(status, error.code, error.title(), told(error), extra, headers)


def told(error: errors.CaptioningError) -> str:
    """What is said of it to whoever asks. The words of drivers name hosts, users and folders:
    they are for the log."""
    if isinstance(error, errors.Unavailable) and error.__cause__:
        logger.warning("%s: %s", error.title(), error)
        return f"{error.title()}."
    return str(error)


def answer(problem: Problem) -> Response:
    """The problem in the form that this request's sender can read."""
    if request.path.startswith(FOR_PROGRAMS):
        response = Response(_as_json(problem), mimetype="application/problem+json")
    else:
        response = Response(render_template("problem.html", problem=problem))
    response.status_code = problem.status
    response.headers.extend(problem.headers)
    return response


def of_werkzeug(error: HTTPException) -> Problem:
    # What went wrong in our own code is logged by Flask and described to nobody.
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    skipped = ("content-type", "content-length")
    kept = {name: value for name, value in error.get_headers() if name.lower() not in skipped}
    return Problem(
        status, status.name.lower(), status.phrase, error.description or status.phrase, {}, kept
    )


def of_validation(error: HTTPError) -> Problem:
    """What APIFlask refuses: `detail` is {where: {field: [messages]}}."""
    fields = [
        {"field": name, "message": message}
        for place in dict(error.detail).values()
        for name, messages in place.items()
        for message in messages
    ]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in fields)
    invalid = errors.InvalidOption
    return Problem(error.status_code, invalid.code, invalid.title(), detail, {"errors": fields})


def _as_json(problem: Problem) -> str:
    body = {
        "type": NAMESPACE + problem.code,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        **problem.extra,
    }
    return json.dumps(body, ensure_ascii=False)
