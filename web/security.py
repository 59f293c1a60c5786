"""What the browser is told to refuse, and what we refuse from it: requests that change
something and come from another site."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from apiflask import APIFlask
from flask import Response, request

from captioning.errors import CaptioningError
from web import problems

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            "img-src 'self' blob:",  # previews of photographs that are not sent yet
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "same-origin",  # "no-referrer" would make our own forms' Origin null
    "X-Content-Type-Options": "nosniff",
}


class CrossSiteRequest(CaptioningError):
    """The request comes from another site."""

    code = "cross_site_request"


problems.STATUSES[CrossSiteRequest] = HTTPStatus.FORBIDDEN


def init_app(app: APIFlask) -> None:
    app.before_request(_refuse_other_sites)
    app.after_request(_with_headers)


def _refuse_other_sites() -> None:
    """Browsers say where a request comes from; programs say nothing and are let in.

    Raises: CrossSiteRequest.
    """
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    else:  # over plain HTTP browsers send Origin only
        ours = origin is None or urlsplit(origin).netloc == request.host
    if not ours:
        raise CrossSiteRequest("Forms of other sites may not be sent here.")


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    # Pages and answers change from one second to the next; images say otherwise themselves.
    response.headers.setdefault("Cache-Control", "no-cache, private")
    return response
