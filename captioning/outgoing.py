"""Requests to addresses that strangers chose, without lending the strangers our network.

Every connection goes to an address that was resolved here and is public, or lies in a network
that the operator has named; it is resolved once, so that a name cannot point elsewhere between
the check and the connection. One deadline holds for all of it, however slowly the bytes drip. No
proxy of the environment is used, no cookie or credential sent, no redirect followed.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpcore
import httpx

MAX_URL_LENGTH = 2000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Refused(Exception):
    """We do not go there."""


class NotPublic(Refused):
    """It leads to an address of somebody's own network."""


class Unreachable(Exception):
    """Nobody answers there as one should."""


class NoSuchHost(Unreachable):
    """Its name has no address."""


def checked(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """The address, if its form is one to go to. Where it leads is seen when it is asked.

    Raises: Refused.
    """
    try:
        url = base.join(text) if base else httpx.URL(text)
        # Half a surrogate pair, a name in Punycode that stands for no name, a zone that is not
        # ASCII: some of it is found only when these are asked for, as they will be.
        parts = (url.host, url.raw_host, url.netloc)
    except (httpx.InvalidURL, ValueError) as error:
        raise Refused("This is not an address.") from error
    if url.scheme not in ("http", "https") or not all(parts) or len(text) > MAX_URL_LENGTH:
        raise Refused("Only addresses that begin with http:// or https:// are asked.")
    if url.port is not None and not 0 < url.port < 2**16:
        raise Refused("There is no such port.")
    if url.userinfo:
        raise Refused("Addresses with a user name or password are not asked.")
    return url


@contextmanager
def exchange(
    method: str,
    url: httpx.URL,
    headers: Mapping[str, str],
    *,
    deadline: float,
    content: bytes = b"",
    networks: Iterable[Network] = (),
) -> Iterator[httpcore.Response]:
    """Send a request and give its answer, to be read within the block or left unread.
    `deadline` is of time.monotonic(); `networks` may be gone to though they are not public.

    Raises: Refused, Unreachable; both from within the block, too.
    """
    target = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    sent = [("Host", url.netloc.decode()), *headers.items()]
    if content:
        sent.append(("Content-Length", str(len(content))))
    guarded = _Guarded(deadline, tuple(networks))
    try:
        with (
            httpcore.ConnectionPool(ssl_context=_tls(), network_backend=guarded) as pool,
            pool.stream(method, target, headers=sent, content=content) as response,
        ):
            yield response
    except (httpcore.TimeoutException, httpcore.NetworkError) as error:
        raise Unreachable(f"{url.host} is away, or too slow.") from error
    except httpcore.ProtocolError as error:
        raise Unreachable(f"{url.host} does not speak HTTP.") from error


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet at large, whatever it is wrapped in."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not found.is_multicast
    # Other unicast ranges, and 6to4 and Teredo within this one, can lead to an IPv4 address.
    unicast = ipaddress.ip_network("2000::/3")
    return found in unicast and found.is_global and not (found.sixtofour or found.teredo)


def allowed(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address may be connected to: it is public, or in one of the networks."""
    if is_public(address):
        return True
    found = ipaddress.ip_address(address)
    return any(found in network for network in networks)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Guarded(httpcore.SyncBackend):
    """Connects to public addresses and to the networks given, before the deadline."""

    def __init__(self, deadline: float, networks: tuple[Network, ...]) -> None:
        self._deadline = deadline
        self._networks = networks

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NoSuchHost(f"There is no host {host}.") from error
        addresses = [str(sockaddr[0]) for *_, sockaddr in found]
        if not all(allowed(address, self._networks) for address in addresses):
            raise NotPublic(f"{host} is not a public address.")
        for address in addresses[:-1]:
            try:
                return self._connect(address, port, socket_options)
            except httpcore.ConnectError:  # such as IPv6 without a route
                continue
        return self._connect(addresses[-1], port, socket_options)

    def _connect(
        self, address: str, port: int, socket_options: Iterable[Any] | None
    ) -> httpcore.NetworkStream:
        left_s = _left(self._deadline, httpcore.ConnectTimeout)
        stream = super().connect_tcp(address, port, left_s, None, socket_options)
        peer = stream.get_extra_info("server_addr")[0]
        if not allowed(peer, self._networks):
            stream.close()
            raise NotPublic(f"{peer} is not a public address.")
        return _Timed(stream, self._deadline)


class _Timed(httpcore.NetworkStream):
    """A connection whose every step ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left_s = _left(self._deadline, httpcore.ConnectTimeout)
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float, too_late: type[Exception]) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise too_late
    return left_s
