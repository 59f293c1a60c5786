"""An image from an address that a stranger chose, without lending the stranger our network.

Every connection, of redirects too, goes to an address that was resolved here and is public; it
is resolved once, so that a name cannot point elsewhere between the check and the connection.
One deadline holds for all of it, however slowly the bytes drip. No proxy of the environment is
used, no cookie or credential sent. What comes back is only bytes: intake decides what they are.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import httpcore
import httpx

from captioning.errors import ImageTooLarge, ImageUnfetchable, ImageUrlRefused
from captioning.queue import Upload

TIMEOUT_S = 15.0
MAX_REDIRECTS = 4
MAX_URL_LENGTH = 2000
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = (("User-Agent", "captioning"), ("Accept", "image/*"), ("Accept-Encoding", "identity"))


def fetch(url: str, *, max_bytes: int, timeout_s: float = TIMEOUT_S) -> Upload:
    """Raises: ImageUrlRefused, ImageUnfetchable, ImageTooLarge."""
    backend = _PublicOnly(deadline=time.monotonic() + timeout_s)
    tls = ssl.create_default_context()
    with httpcore.ConnectionPool(ssl_context=tls, network_backend=backend) as pool:
        target = _checked(url)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                redirect, data = _get(pool, target, max_bytes)
            except (httpcore.TimeoutException, httpcore.NetworkError) as error:
                raise ImageUnfetchable(f"{target.host} is away, or too slow.") from error
            except httpcore.ProtocolError as error:
                raise ImageUnfetchable(f"{target.host} does not speak HTTP.") from error
            if redirect is None:
                return Upload(unquote(target.path).rsplit("/", 1)[-1] or target.host, data)
            target = _checked(redirect, target)
    raise ImageUnfetchable(f"The address redirects more than {MAX_REDIRECTS} times.")


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet at large, whatever it is wrapped in."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not found.is_multicast
    # Other unicast ranges, and 6to4 and Teredo within this one, can lead to an IPv4 address.
    unicast = ipaddress.ip_network("2000::/3")
    return found in unicast and found.is_global and not (found.sixtofour or found.teredo)


def _checked(text: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        url = base.join(text) if base else httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ImageUrlRefused("This is not an address.") from error
    if url.scheme not in ("http", "https") or not url.host or len(text) > MAX_URL_LENGTH:
        raise ImageUrlRefused("Only addresses that begin with http:// or https:// are fetched.")
    if url.port is not None and not 0 < url.port < 2**16:
        raise ImageUrlRefused("There is no such port.")
    if url.userinfo:
        raise ImageUrlRefused("Addresses with a user name or password are not fetched.")
    return url


def _get(pool: httpcore.ConnectionPool, url: httpx.URL, max_bytes: int) -> tuple[str | None, bytes]:
    """Where the answer redirects to, or what it holds."""
    target = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    headers = [("Host", url.netloc.decode()), *HEADERS]
    with pool.stream("GET", target, headers=headers) as response:
        answered = httpx.Headers(response.headers)
        if response.status in REDIRECTS and "Location" in answered:
            return answered["Location"], b""
        if response.status != 200:
            raise ImageUnfetchable(f"{url.host} answered {response.status}.")
        if answered.get("Content-Encoding", "identity") != "identity":
            raise ImageUnfetchable(f"{url.host} answered in an encoding that was not asked for.")
        data = bytearray()
        for chunk in response.iter_stream():
            data += chunk
            if len(data) > max_bytes:
                raise ImageTooLarge(f"The file is larger than {max_bytes / 1e6:.0f} MB.")
    return None, bytes(data)


class _PublicOnly(httpcore.SyncBackend):
    """Connects to public addresses, before the deadline."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

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
            raise ImageUnfetchable(f"There is no host {host}.") from error
        addresses = [str(sockaddr[0]) for *_, sockaddr in found]
        if not all(is_public(address) for address in addresses):
            raise ImageUrlRefused(f"{host} is not a public address.")
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
        if not is_public(peer):
            stream.close()
            raise ImageUrlRefused(f"{peer} is not a public address.")
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
