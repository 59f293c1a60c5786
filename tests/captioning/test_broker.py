"""The doorbell through a real Valkey: it is heard, and where it cannot ring it says so soon."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from celery import Celery

from captioning.broker import MAX_RINGS, TASK, Doorbell, make_celery, queue_name
from captioning.settings import Settings
from tests.servers import Valkey

SOON_S = 6
"""Three times what an upload waits for a broker in trouble: for machines that are busy."""


@contextmanager
def doorbell(url: str) -> Iterator[Doorbell]:
    bell = Doorbell(make_celery(Settings(broker_url=url)))
    try:
        yield bell
    finally:
        bell.close()


def waiting(server: Valkey, model: str = "bundled") -> int:
    with server.client as client:
        return int(client.llen(queue_name(model)))  # type: ignore[arg-type]


def test_a_ring_is_a_message_in_the_models_queue(valkey: Valkey) -> None:
    with doorbell(valkey.url) as bell:
        assert bell.ring("bundled")
        assert bell.ring("other", times=3)
    assert (waiting(valkey), waiting(valkey, "other")) == (1, 3)
    with valkey.client as client:
        message = json.loads(client.lindex(queue_name("bundled"), 0))  # type: ignore[arg-type]
    assert message["headers"]["task"] == TASK
    assert message["headers"]["kwargsrepr"] == "{'model': 'bundled'}"


def test_a_ring_is_heard_by_a_consumer(valkey: Valkey) -> None:
    app: Celery = make_celery(Settings(broker_url=valkey.url))
    with doorbell(valkey.url) as bell:
        assert bell.ring("bundled")
    with app.connection() as connection, closing(connection.SimpleQueue("captioning.bundled")) as q:
        message = q.get(timeout=5)
        assert message.payload[1] == {"model": "bundled"}
        message.ack()
    app.close()


def test_one_submission_rings_only_so_often(valkey: Valkey) -> None:
    with doorbell(valkey.url) as bell:
        assert bell.ring("bundled", times=10_000)
    assert waiting(valkey) == MAX_RINGS


def test_ringing_leaves_no_connection_behind(valkey: Valkey) -> None:
    with doorbell(valkey.url) as bell, valkey.client as client:
        bell.ring("bundled")
        before = client.info("clients")["connected_clients"]
        for _ in range(20):
            bell.ring("bundled")
        after = client.info("clients")["connected_clients"]
    assert after <= before


def test_many_threads_may_ring_at_once(valkey: Valkey) -> None:
    with doorbell(valkey.url) as bell:
        rung: list[bool] = []
        threads = [
            threading.Thread(target=lambda: rung.append(bell.ring("bundled"))) for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert rung == [True] * 16
    assert waiting(valkey) == 16


def test_the_bell_rings_again_after_the_broker_came_back() -> None:
    server = Valkey()
    try:
        with doorbell(server.url) as bell:
            assert bell.ring("bundled")
            server.stop()
            assert not bell.ring("bundled")
            server.start()
            assert bell.ring("bundled")
            assert waiting(server) == 1
    finally:
        server.close()


def test_a_ring_outlives_the_connection_of_the_ring_before(valkey: Valkey) -> None:
    with doorbell(valkey.url) as bell, valkey.client as client:
        assert bell.ring("bundled")
        client.client_kill_filter(_type="normal", skipme=True)
        assert bell.ring("bundled")
    assert waiting(valkey) == 2


@pytest.mark.slow
def test_a_broker_that_freezes_does_not_hang_the_upload() -> None:
    server = Valkey()
    try:
        with doorbell(server.url) as bell:
            assert bell.ring("bundled")
            assert bell.answers()
            server.freeze()
            started = time.monotonic()
            assert not bell.ring("bundled", times=50)
            assert not bell.answers()
            assert time.monotonic() - started < 2 * SOON_S
            server.thaw()
            assert bell.ring("bundled")
            assert bell.answers()
    finally:
        server.close()


def test_a_second_ring_is_one_command(valkey: Valkey) -> None:
    with doorbell(valkey.url) as bell, valkey.client as client:
        assert bell.ring("bundled")
        before = client.info("stats")["total_commands_processed"]
        assert bell.ring("bundled")
        after = client.info("stats")["total_commands_processed"]
    assert after - before == 2  # with the one that asks


def test_a_broker_that_refuses_writes_fails_no_upload() -> None:
    server = Valkey("--maxmemory", "1kb")
    try:
        with doorbell(server.url) as bell:
            assert not bell.ring("bundled")
    finally:
        server.close()


def test_a_broker_that_wants_a_password_fails_no_upload() -> None:
    server = Valkey("--requirepass", "secret")
    try:
        with doorbell(server.url) as bell:
            assert not bell.ring("bundled")
    finally:
        server.close()


def unreachable(kind: str, folder: Path) -> str:
    if kind == "no socket":
        return f"redis+socket://{folder}/nobody.sock"
    if kind == "stale socket":
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(folder / "stale.sock"))
        return f"redis+socket://{folder}/stale.sock"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"redis://127.0.0.1:{closed.getsockname()[1]}/0"


@pytest.mark.parametrize("kind", ["no socket", "stale socket", "closed port"])
def test_a_broker_that_is_away_answers_soon(kind: str, tmp_path: Path) -> None:
    with doorbell(unreachable(kind, tmp_path)) as bell:
        started = time.monotonic()
        assert not bell.ring("bundled", times=50)
        assert time.monotonic() - started < SOON_S


@pytest.mark.slow
@pytest.mark.parametrize("accepts", [True, False])
def test_a_broker_that_never_answers_does_not_hang_the_upload(accepts: bool) -> None:
    """A firewall or a frozen host: the connection opens, or not even that, and then nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64 if accepts else 0) as silent:
        crowd = [] if accepts else fill_backlog(silent)
        with doorbell(f"redis://127.0.0.1:{silent.getsockname()[1]}/0") as bell:
            started = time.monotonic()
            rung: list[bool] = []
            ringing = threading.Thread(
                target=lambda: rung.append(bell.ring("bundled", times=50)), daemon=True
            )
            ringing.start()
            ringing.join(SOON_S)
            assert rung == [False], f"no answer after {time.monotonic() - started:.1f} s"
        for connection in crowd:
            connection.close()


def fill_backlog(server: socket.socket) -> list[socket.socket]:
    crowd = []
    for _ in range(4):
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(server.getsockname())
        crowd.append(connection)
    return crowd
