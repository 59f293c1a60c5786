"""A webhook's message on its way: the signature, where it may go, what counts as received."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Network, ip_network

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from captioning import messages
from captioning.messages import Message, send
from captioning.models import new_id
from tests.sites import Answer, Site, always, respond

HERE = (IPv4Network("127.0.0.1/32"),)
SECRET, OTHER = ("whsec_" + base64.b64encode(text * 32).decode() for text in (b"a", b"b"))


def message(url: str, *secrets: str) -> Message:
    return Message(new_id(), 1, url, '{"caption":"ein Hündchen"}'.encode(), secrets or (SECRET,))


def received(request: str) -> tuple[dict[str, str], str]:
    """Headers and body, as the receiver's framework gives them."""
    head, _, body = request.partition("\r\n\r\n")
    lines = (line.partition(": ") for line in head.split("\r\n")[1:])
    return {name.lower(): value for name, _, value in lines}, body.encode("latin-1").decode()


def test_a_receiver_verifies_it_with_the_library_of_the_standard(
    site: Callable[[Answer], Site],
) -> None:
    target = site(always(respond("204 No Content")))
    sent = message(f"{target.url}/hooks?of=captions", SECRET)
    answer = send(sent, HERE)
    assert (answer.received, answer.status_code, answer.error) == (True, 204, None)
    (request,) = target.asked
    assert request.startswith("POST /hooks?of=captions HTTP/1.1\r\n")
    headers, body = received(request)
    assert Webhook(SECRET).verify(body, headers) == {"caption": "ein Hündchen"}
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == sent.id
    assert "cookie" not in headers
    assert "authorization" not in headers
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + " ", headers)


def test_while_a_secret_is_changed_either_verifies() -> None:
    sent = message("http://127.0.0.1/", SECRET, OTHER)
    headers = messages.signature(sent, int(time.time()))
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(sent.body.decode(), headers)


@pytest.mark.parametrize(
    ("status", "hopeless"),
    [
        ("301 Moved", False),
        ("404 Not Found", False),
        ("410 Gone", True),
        ("429 Slowly", False),
        ("500 Oops", False),
    ],
)
def test_only_2xx_is_received_and_only_gone_is_hopeless(
    site: Callable[[Answer], Site], status: str, hopeless: bool
) -> None:
    target = site(always(respond(status, Location="/elsewhere")))
    answer = send(message(target.url), HERE)
    assert (answer.received, answer.hopeless) == (False, hopeless)
    assert answer.status_code == int(status[:3])
    assert len(target.asked) == 1  # no redirect is followed


def test_nothing_is_sent_to_our_own_network(site: Callable[[Answer], Site]) -> None:
    target = site(always(respond("200 OK")))
    for host in ("127.0.0.1", "localhost", "[::1]", "0", "2130706433"):
        answer = send(message(f"http://{host}:{target.port}/"), ())
        assert (answer.received, answer.hopeless) == (False, False)
        assert "not a public address" in (answer.error or "")
    assert target.asked == []


def test_a_network_that_is_named_opens_no_other(site: Callable[[Answer], Site]) -> None:
    target = site(always(respond("200 OK")))
    assert send(message(target.url), [ip_network("127.0.0.0/8")]).received
    assert not send(message(target.url), [ip_network("10.0.0.0/8"), ip_network("::/0")]).received


def test_a_name_that_leads_to_our_network_is_refused_while_it_does(
    site: Callable[[Answer], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = site(always(respond("200 OK")))
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("127.0.0.1", target.port))]
    )
    answer = send(message(f"http://rebound.example:{target.port}/"), ())
    assert (answer.received, answer.hopeless) == (False, False)
    assert target.asked == []


@pytest.mark.parametrize("url", ["rebound.example", "ftp://rebound.example/", "http://a:b@c/"])
def test_an_address_that_is_none_is_hopeless(url: str) -> None:
    assert send(message(url), HERE).hopeless


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.9\r\n"])
def test_who_speaks_no_http_has_not_received_it(
    site: Callable[[Answer], Site], answer: bytes
) -> None:
    found = send(message(site(always(answer)).url), HERE)
    assert (found.received, found.hopeless, found.status_code) == (False, False, None)


def test_an_endless_answer_is_not_read(site: Callable[[Answer], Site]) -> None:
    sent = 0

    def endless(connection: socket.socket, path: str) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 500_000_000:
            sent += connection.send(bytes(65536))

    assert send(message(site(endless).url), HERE).received
    assert sent < 100_000_000


def test_dripping_headers_keep_nobody_beyond_the_deadline(
    site: Callable[[Answer], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "TIMEOUT_S", 0.5)
    dripped = 0

    def drip(connection: socket.socket, path: str) -> None:
        nonlocal dripped
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while dripped < 600:
            connection.sendall(b"x")
            dripped += 1
            time.sleep(0.05)

    answer = send(message(site(drip).url), HERE)
    assert not answer.received
    assert dripped < 600
