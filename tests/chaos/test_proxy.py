"""The network that the chaos tests break: what it does must be what they say it does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.proxy import Proxy

SOON_S = 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "server"))
        listening.listen()
        listening.settimeout(SOON_S)
        yield listening


@pytest.fixture
def proxy(server: socket.socket) -> Iterator[Proxy]:
    proxy = Proxy(Path(server.getsockname()))
    yield proxy
    proxy.close()


@pytest.fixture
def ends(server: socket.socket, proxy: Proxy) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection through the proxy: the client's end and the server's."""
    with socket.create_connection(("127.0.0.1", proxy.port), SOON_S) as client:
        there, _ = server.accept()
        with there:
            there.settimeout(SOON_S)
            yield client, there


def test_it_passes_on_both_ways(ends: tuple[socket.socket, socket.socket]) -> None:
    client, there = ends
    client.sendall(b"ask")
    assert there.recv(3) == b"ask"
    there.sendall(b"told")
    assert client.recv(4) == b"told"


def test_a_cut_resets_what_is_connected(
    proxy: Proxy, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, there = ends
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert there.recv(1) == b""


def test_what_was_swallowed_comes_when_the_network_is_back(
    proxy: Proxy, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, there = ends
    proxy.swallow()
    client.sendall(b"ask")
    there.settimeout(0.2)
    with pytest.raises(TimeoutError):
        there.recv(3)
    there.settimeout(SOON_S)
    proxy.heal()
    assert there.recv(3) == b"ask"


def test_a_cut_passes_over_what_one_side_has_left_already(
    proxy: Proxy, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, there = ends
    proxy.delay(SOON_S)
    client.sendall(b"on its way while the server leaves")
    there.close()
    assert client.recv(1) == b""  # closed towards the client, while the other way still waits
    proxy.cut()
