"""Limits of requests, by access key, or by address where none is shown. What is left is told in
the headers of every answer (draft-ietf-httpapi-ratelimit-headers)."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

from apiflask import APIFlask
from flask import Response, after_this_request, current_app, request

from captioning.access import Caller
from captioning.errors import RateLimited
from captioning.settings import Settings
from web.counting import Counts

REQUESTS = "requests"
SIGN_IN = "sign-in"


def init_app(app: APIFlask) -> None:
    settings: Settings = app.extensions["captioning"].settings
    app.extensions["captioning.counts"] = Counts(settings.broker_url)


def count_request(caller: Caller) -> None:
    """Raises: RateLimited."""
    rate = caller.limits.rate or _settings().rate_limit
    _count(REQUESTS, rate, f"key-{caller.owner}" if caller.owner else None)


def count_sign_in() -> None:
    """Raises: RateLimited."""
    _count(SIGN_IN, _settings().sign_in_limit)


def _count(what: str, rate: str, who: str | None = None) -> None:
    """By address, where nobody is named."""
    if rate == "off":
        return
    counts: Counts = current_app.extensions["captioning.counts"]
    standing = counts.take(rate, (what, who or _address()))
    if standing is None:
        return

    @after_this_request
    def tell(response: Response) -> Response:
        policy = f'"{what}";q={standing.amount};w={standing.window_s}'
        response.headers["RateLimit-Policy"] = policy
        response.headers["RateLimit"] = f'"{what}";r={standing.left};t={standing.reset_s}'
        return response

    if not standing.allowed:
        amount, window_s = standing.amount, standing.window_s
        message = f"There may be {amount} in {window_s} s. Come back in {standing.reset_s} s."
        raise RateLimited(message, standing.reset_s)


def _address() -> str:
    """Who holds an IPv6 address holds the 2^64 beside it, too."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:  # a Unix socket's
        return "nowhere"
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ip_network((int(address), 64), strict=False))
    return str(address)


def _settings() -> Settings:
    found: Settings = current_app.extensions["captioning"].settings
    return found
