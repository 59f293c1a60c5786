"""Who asks. With CAPTIONING_ACCESS=keys no request gets any further without an access key in
force, as a bearer token or in exchange for a cookie on the sign-in page, but for the few
endpoints that are named here. What a caller then sees is captioning/access.py's business.
"""

from __future__ import annotations

from http import HTTPStatus

from apiflask import APIFlask
from flask import current_app, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from captioning import access
from captioning.access import EVERYBODY, STRANGER, Caller
from captioning.errors import AccessDenied, KeyRefused, KeyRequired
from web import rates
from web.current import caller, whole_queue
from web.problems import FOR_PROGRAMS

WITHOUT_KEY = {
    "static",
    "health.healthz",
    "health.readyz",
    "openapi.spec",
    "pages.api_docs",
    "pages.sign_in",
    "pages.enter",
}
"""Endpoints for everybody: any other, one that is added tomorrow too, needs a key."""

COOKIE = "captioning"
COOKIE_OVER_TLS = "__Host-captioning"
"""Browsers take a cookie of such a name from this very host and over TLS only."""


def init_app(app: APIFlask) -> None:
    app.before_request(_admit)
    app.context_processor(_signed_in_as)


def cookie_name() -> str:
    return COOKIE_OVER_TLS if request.is_secure else COOKIE


def _admit() -> ResponseReturnValue | None:
    """Raises: KeyRequired, KeyRefused, RateLimited."""
    if request.endpoint in WITHOUT_KEY:
        _let_see(STRANGER)
        return None
    try:
        _let_see(_caller())
        rates.count_request(caller())
    except AccessDenied:
        _let_see(STRANGER)
        rates.count_request(STRANGER)
        if not _asked_by_a_person():
            raise
        return _to_sign_in()
    return None


def _let_see(caller: Caller) -> None:
    g.queue = whole_queue().seen_by(caller)


def _caller() -> Caller:
    if whole_queue().settings.access == "open":
        return EVERYBODY
    given = request.authorization
    token = request.cookies.get(cookie_name())
    with whole_queue().database.read() as session:
        if given is not None:
            if given.type != "bearer" or not given.token:
                raise KeyRefused("Send it as `Authorization: Bearer KEY`.")
            return access.caller_of_key(session, given.token)
        if token:
            return access.caller_of_sign_in(session, token)
    raise KeyRequired("Send it as `Authorization: Bearer KEY`.")


def _asked_by_a_person() -> bool:
    """Whether a page is asked for, and not by a program that shows a key."""
    by_a_program = request.path.startswith(FOR_PROGRAMS)
    return not by_a_program and request.authorization is None


def _to_sign_in() -> ResponseReturnValue:
    if request.method == "GET" and "HX-Request" not in request.headers:
        after = request.full_path if request.query_string else request.path
        return redirect(url_for("pages.sign_in", after=after), HTTPStatus.SEE_OTHER)
    # What was sent cannot be sent again for them; htmx is told where to lead the whole page.
    where = url_for("pages.sign_in")
    page = render_template("sign_in.html", message="Sign in first.", after="/")
    return page, HTTPStatus.UNAUTHORIZED, {"HX-Redirect": where, "WWW-Authenticate": "Bearer"}


def _signed_in_as() -> dict[str, str]:
    by_cookie = current_app and "queue" in g and request.authorization is None
    return {"signed_in_as": caller().name if by_cookie else ""}
