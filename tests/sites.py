"""Servers of somebody else: they answer as a test tells them, and keep what they were asked."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import closing
from threading import Thread

Answer = Callable[[socket.socket, str], None]


class Site:
    """A server of one answer, that keeps the requests it got."""

    def __init__(self, answer: Answer) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.asked: list[str] = []
        self._answer = answer
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        with closing(connection):
            request = _read(connection)
            if request:
                self.asked.append(request)
                try:
                    self._answer(connection, request.split(" ")[1])
                except OSError:  # who asked has had enough
                    return

    def close(self) -> None:
        self._socket.close()


def _read(connection: socket.socket) -> str:
    """A request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            return data.decode("latin-1")
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while length and len(body) < int(length[1]):
        body += connection.recv(65536)
    return (head + b"\r\n\r\n" + body).decode("latin-1")


def respond(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def always(data: bytes) -> Answer:
    return lambda connection, path: connection.sendall(data)
