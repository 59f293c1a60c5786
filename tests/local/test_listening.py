"""The address is checked before anything is started, and asked until it is ready."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from captioning.local.errors import StartError
from captioning.local.listening import missing, public_url, require_free

HOST = "127.0.0.1"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_a_free_port_is_fine_and_stays_free(free_port: int) -> None:
    require_free(HOST, free_port)
    require_free("localhost", free_port)
    require_free(HOST, free_port)


def test_a_port_in_use_is_said_with_what_to_do(taken_port: int) -> None:
    with pytest.raises(StartError) as caught:
        require_free(HOST, taken_port)
    assert str(caught.value) == (
        f"Port {taken_port} on 127.0.0.1 is in use. "
        "Stop what uses it, or choose another port by CAPTIONING_PORT."
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_said(host: str, free_port: int) -> None:
    with pytest.raises(StartError, match=rf"^Cannot listen on {host} port {free_port}: [^\[]+\.$"):
        require_free(host, free_port)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104  (that is the case)
        ("::", "http://[::1]:80"),
        ("box.example", "http://box.example:80"),
    ],
)
def test_the_url_is_one_that_a_browser_can_open(host: str, url: str) -> None:
    assert public_url(host, 80) == url


def test_no_server_means_no_answer_yet(free_port: int) -> None:
    assert missing(HOST, free_port) == "web: no answer yet"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"ready": True}, None),
        (
            503,
            {"checks": {"database": "ok", "worker": "No worker serves the model tiny."}},
            "worker: No worker serves the model tiny.",
        ),
        (500, "a stranger's page", "web: no answer yet"),
        (404, [], "web: no answer yet"),
        (503, {}, "web: no answer yet"),
    ],
)
def test_it_names_what_is_not_ready(status: int, body: Any, expected: str | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert missing(HOST, server.server_port) == expected
        thread.join()
