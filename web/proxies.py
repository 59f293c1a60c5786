"""Which proxies are believed about who asks. A header is anybody's to send: that of a peer which
CAPTIONING_TRUSTED_PROXIES does not name is not read.

Only the address and the scheme are taken from it. The name that was asked for is the Host that
the proxy passes on: X-Forwarded-Host is passed through by proxies that know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from apiflask import APIFlask

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Networks = Sequence[IPv4Network | IPv6Network]


class TrustedProxies:
    """Around a WSGI application: REMOTE_ADDR is who asks and not who passes it on."""

    def __init__(self, app: WSGIApplication, trusted: Networks) -> None:
        self._app = app
        self._trusted = trusted

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        peer = _address(environ.get("REMOTE_ADDR", ""))
        if peer and self._trusts(peer):
            environ["REMOTE_ADDR"] = str(self._client(peer, environ))
            scheme = _last(environ, "HTTP_X_FORWARDED_PROTO").lower()
            if scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
        return self._app(environ, start_response)

    def _client(
        self, peer: IPv4Address | IPv6Address, environ: WSGIEnvironment
    ) -> IPv4Address | IPv6Address:
        """The last address that no trusted proxy has: what stands before it may be invented."""
        for entry in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").split(",")):
            address = _address(entry)
            if address is None:
                break
            peer = address
            if not self._trusts(peer):
                break
        return peer

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def init_app(app: APIFlask) -> None:
    trusted = app.extensions["captioning"].settings.trusted_proxies
    if trusted:
        app.wsgi_app = TrustedProxies(app.wsgi_app, trusted)  # type: ignore[method-assign]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _last(environ: WSGIEnvironment, name: str) -> str:
    value: str = environ.get(name, "")
    return value.rpartition(",")[2].strip()
