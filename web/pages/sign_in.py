"""The page on which an access key is exchanged for a cookie, and the way out again."""

from __future__ import annotations

from http import HTTPStatus

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from captioning import access
from captioning.errors import KeyRefused
from web import rates
from web.access import cookie_name
from web.current import whole_queue
from web.pages.blueprint import bp


@bp.get("/sign-in")
def sign_in() -> ResponseReturnValue:
    return render_template("sign_in.html", after=_after(request.args.get("after")))


@bp.post("/sign-in")
def enter() -> ResponseReturnValue:
    rates.count_sign_in()
    after = _after(request.form.get("after"))
    try:
        with whole_queue().database.write() as session:
            token = access.sign_in(session, request.form.get("key", "").strip())
    except KeyRefused:
        message = "This key is unknown, or has been revoked."
        page = render_template("sign_in.html", message=message, after=after)
        return page, HTTPStatus.UNAUTHORIZED
    response = redirect(after, HTTPStatus.SEE_OTHER)
    response.set_cookie(
        cookie_name(),
        token,
        max_age=access.SIGNED_IN_S,
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",  # Strict would ask those to sign in who follow a link from a mail
    )
    return response


@bp.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    if token := request.cookies.get(cookie_name()):
        with whole_queue().database.write() as session:
            access.sign_out(session, token)
    response = redirect(url_for("pages.sign_in"), HTTPStatus.SEE_OTHER)
    response.delete_cookie(cookie_name(), secure=request.is_secure, httponly=True, samesite="Lax")
    response.headers["Clear-Site-Data"] = '"cache"'  # photographs may be kept for a month
    return response


def _after(path: str | None) -> str:
    """Where to go then: a path of ours. `//evil.example` is none, and browsers read a backslash
    as a slash and pass over control characters."""
    ours = path is not None and path.isprintable() and path[:1] == "/" and path[1:2] not in "/\\"
    return path if path and ours else url_for("pages.upload")
