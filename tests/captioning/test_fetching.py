"""Fetching an image by its address: what is public, what is refused, and where it ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.errors import ImageTooLarge, ImageUnfetchable, ImageUrlRefused
from captioning.fetching import MAX_REDIRECTS, fetch
from captioning.outgoing import Refused, checked, is_public
from tests.factories import photo
from tests.sites import Answer, Site, always, respond

MAX_BYTES = 100_000


# --- addresses ----------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111"])
def test_the_internet_is_public(address: str) -> None:
    assert is_public(address)


ELSEWHERE = """
127.0.0.1 127.8.8.8 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 192.0.0.1
192.0.2.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 fe80::1 fe80::1%2 fc00::1
fd00:ec2::254 ff02::1 2001:db8::1 ::ffff:127.0.0.1 ::ffff:1.1.1.1 ::127.0.0.1 64:ff9b::7f00:1
2002:7f00:1:: 2001:0:7f00:1::
"""


@pytest.mark.parametrize("address", ELSEWHERE.split())
def test_everything_else_is_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "127.1"]
)
def test_nothing_is_asked_of_our_own_network(site: Callable[[Answer], Site], host: str) -> None:
    target = site(always(respond("200 OK", photo())))
    with pytest.raises(ImageUrlRefused):
        fetch(f"http://{host}:{target.port}/", max_bytes=MAX_BYTES)
    assert target.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "photo.jpg",
        "//host/photo.jpg",
        "file:///etc/passwd",
        "ftp://host/photo.jpg",
        "gopher://host/",
        "data:image/png;base64,AAAA",
        "http://",
        "http:///path",
        "http://user:secret@host/",
        "http://host:99999999/",
        "http://ho\0st/",
        "http://xn--a/",
        "http://[2606:4700::1111%25é]/",
        "http://[fe80::1%é]/",
        "http://host/\ud800",
        "http://host/" + "a" * 3000,
    ],
)
def test_what_is_no_address_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(ImageUrlRefused):
        fetch(url, max_bytes=MAX_BYTES)


ODD = st.text(st.sampled_from("htps:/[]%@?#.-_xn1:25é\u3002\ud800\\ \n"), max_size=12)
PLACES = ["{}", "//{}", "http:{}", "http://{}", "http://[{}]/", "http://[fe80::1%25{}]/"]


@given(odd=ODD, place=st.sampled_from(PLACES))
def test_whatever_is_taken_for_an_address_can_be_asked(odd: str, place: str) -> None:
    """It may come from a form, or from a site that redirects."""
    for base in (None, httpx.URL("https://host.example/a")):
        with suppress(Refused):
            url = checked(place.format(odd), base)
            assert url.host
            assert url.raw_host
            assert url.netloc.decode()


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **hints: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ImageUrlRefused, match="no public"):
        fetch("http://rebound.example/", max_bytes=MAX_BYTES)


def test_a_name_is_resolved_once_and_the_peer_is_checked(
    site: Callable[[Answer], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the name says later, or the system does with the address: who answers counts."""
    target = site(always(respond("200 OK", photo())))
    asked: list[str] = []

    def resolve(host: str, port: int, **hints: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(0, 0, 0, "", ("1.1.1.1", port))]

    def connect(address: tuple[str, int], *options: object, **named: object) -> socket.socket:
        assert address == ("1.1.1.1", target.port)
        there = socket.socket()
        there.connect(("127.0.0.1", target.port))
        return there

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ImageUrlRefused, match=r"rebound\.example leads to no public"):
        fetch(f"http://rebound.example:{target.port}/", max_bytes=MAX_BYTES)
    assert asked == ["rebound.example"]
    assert target.asked == []


def test_a_name_that_does_not_exist_is_answered_like_one_of_our_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(*arguments: object, **hints: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ImageUrlRefused, match=r"nowhere\.example leads to no public address"):
        fetch("https://nowhere.example/a.jpg", max_bytes=MAX_BYTES)


# --- answers ------------------------------------------------------------------------------


@pytest.mark.usefixtures("here_is_public")
def test_an_image_comes_with_the_name_in_its_address(site: Callable[[Answer], Site]) -> None:
    target = site(always(respond("200 OK", photo(), **{"Content-Type": "text/html"})))
    upload = fetch(f"{target.url}/some/my%20cat.jpg?size=9#top", max_bytes=MAX_BYTES)
    assert (upload.filename, upload.data) == ("my cat.jpg", photo())
    (asked,) = target.asked
    assert asked.startswith("GET /some/my%20cat.jpg?size=9 HTTP/1.1\r\n")
    assert "cookie" not in asked.lower()
    assert fetch(target.url, max_bytes=MAX_BYTES).filename == "127.0.0.1"


@pytest.mark.usefixtures("here_is_public")
def test_redirects_are_followed_to_a_bound(site: Callable[[Answer], Site]) -> None:
    def answer(connection: socket.socket, path: str) -> None:
        left = int(path.strip("/"))
        found = respond("200 OK", photo())
        connection.sendall(respond("302 Found", Location=f"/{left - 1}") if left else found)

    target = site(answer)
    assert fetch(f"{target.url}/{MAX_REDIRECTS}", max_bytes=MAX_BYTES).data == photo()
    with pytest.raises(ImageUnfetchable, match="redirects more than"):
        fetch(f"{target.url}/{MAX_REDIRECTS + 1}", max_bytes=MAX_BYTES)


@pytest.mark.usefixtures("here_is_public")
@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "file:///etc/passwd",
        "http://a:b@c/",
        "http://xn--a/",
    ],
)
def test_each_redirect_is_checked(site: Callable[[Answer], Site], location: str) -> None:
    target = site(always(respond("302 Found", Location=location)))
    with pytest.raises(ImageUrlRefused):
        fetch(target.url, max_bytes=MAX_BYTES)


@pytest.mark.usefixtures("here_is_public")
@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "206 Partial Content", "304 Same"])
def test_another_answer_is_said(site: Callable[[Answer], Site], status: str) -> None:
    target = site(always(respond(status)))
    with pytest.raises(ImageUnfetchable, match=status[:3]):
        fetch(target.url, max_bytes=MAX_BYTES)


@pytest.mark.usefixtures("here_is_public")
@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"",
        respond("200 OK", photo())[:-50],
        respond("200 OK", photo(), **{"Content-Encoding": "gzip"}),
    ],
)
def test_what_is_no_whole_plain_answer_is_unfetchable(
    site: Callable[[Answer], Site], answer: bytes
) -> None:
    with pytest.raises(ImageUnfetchable):
        fetch(site(always(answer)).url, max_bytes=MAX_BYTES)


@pytest.mark.usefixtures("here_is_public")
def test_nobody_listening_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ImageUnfetchable, match="is away"):
        fetch(f"http://127.0.0.1:{port}/", max_bytes=MAX_BYTES)


@pytest.mark.usefixtures("here_is_public")
def test_reading_ends_at_the_largest_size(site: Callable[[Answer], Site]) -> None:
    sent = 0

    def endless(connection: socket.socket, path: str) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 500_000_000:
            sent += connection.send(bytes(65536))

    with pytest.raises(ImageTooLarge):
        fetch(site(endless).url, max_bytes=MAX_BYTES)
    assert sent < 100_000_000


@pytest.mark.usefixtures("here_is_public")
@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["headers", "body"])
def test_dripping_bytes_keep_nobody_beyond_the_deadline(
    site: Callable[[Answer], Site], head: bytes
) -> None:
    dripped = 0

    def drip(connection: socket.socket, path: str) -> None:
        nonlocal dripped
        connection.sendall(head or b"HTTP/1.1 200 OK\r\nX: ")
        while dripped < 600:
            connection.sendall(b"x")
            dripped += 1
            time.sleep(0.05)

    with pytest.raises(ImageUnfetchable):
        fetch(site(drip).url, max_bytes=MAX_BYTES, timeout_s=0.5)
    assert dripped < 600
