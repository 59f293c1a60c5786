"""What the browser is told to refuse, and what we refuse from it: requests that change
something and come from another site, and those for a name that is not ours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from apiflask import APIFlask
from flask import Response, request
from werkzeug.sansio.utils import host_is_trusted

from captioning.errors import CaptioningError
from web import problems
from web.current import whole_queue

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' blob:",  # previews of photographs that are not sent yet
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "same-origin",  # "no-referrer" would make our own forms' Origin null
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site shows our photographs
    # Pages and answers change from one second to the next; images say otherwise themselves.
    "Cache-Control": "no-cache, private",
}
OVER_TLS = {"Strict-Transport-Security": f"max-age={365 * 24 * 3600}"}

ASKED_BY_ADDRESS = {"health.healthz", "health.readyz"}
"""Endpoints for whoever looks after the process, by whatever name they call it."""


class CrossSiteRequest(CaptioningError):
    """The request comes from another site."""

    code = "cross_site_request"


class HostRefused(CaptioningError):
    """The service is not asked for by this name."""

    code = "host_refused"


problems.STATUSES[CrossSiteRequest] = HTTPStatus.FORBIDDEN
problems.STATUSES[HostRefused] = HTTPStatus.MISDIRECTED_REQUEST


def init_app(app: APIFlask) -> None:
    app.before_request(_refuse_other_names)
    app.before_request(_refuse_other_sites)
    app.after_request(_with_headers)


def _refuse_other_names() -> None:
    """A name of somebody else's that leads here makes their page one of ours to a browser: by
    DNS rebinding they read what is open on this machine. An address cannot be theirs.

    Raises: HostRefused.
    """
    if request.endpoint in ASKED_BY_ADDRESS:
        return
    if not _is_ours(request.host, whole_queue().settings.allowed_hosts):
        raise HostRefused("Name it in CAPTIONING_ALLOWED_HOSTS if it is yours.")


@lru_cache(maxsize=64)  # nearly all requests name the same
def _is_ours(host: str, allowed: Sequence[str]) -> bool:
    name = _split(f"//{host}").hostname or ""
    return "*" in allowed or _is_address(name) or bool(name and host_is_trusted(name, allowed))


def _split(url: str) -> SplitResult:
    """Its parts; of what has no form, none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


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
        ours = origin is None or _split(origin).netloc == request.host
    if not ours:
        raise CrossSiteRequest("Forms of other sites may not be sent here.")


def _with_headers(response: Response) -> Response:
    already = {name.lower() for name, _ in response.headers}
    for name, value in HEADERS.items():
        if name.lower() not in already:
            response.headers.add(name, value)
    if request.is_secure:
        response.headers.update(OVER_TLS)
    return response
