"""A TCP proxy that stands for the network: it passes on, delays, breaks off or swallows.

It listens on a port of this machine and connects to a Unix socket, where the tests' own servers
listen. What is swallowed is kept: as TCP would, it is passed on when the network is back.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

CHUNK_BYTES = 65536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for closing with a reset, as a network that is cut does."""


class Proxy:
    """One way through, on a thread of its own. Its faults hold for what is connected already, and
    for what connects next."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._delay_s = 0.0
        self._refuses = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._attend, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.heal()

    def heal(self) -> None:
        """Pass everything on, what was swallowed first."""
        self._run(self._become())

    def delay(self, seconds: float) -> None:
        """Everything takes so much longer, each way."""
        self._run(self._become(delay_s=seconds))

    def cut(self) -> None:
        """Break off every connection, and each new one."""
        self._run(self._become(refuses=True))

    def swallow(self) -> None:
        """Take everything, connections too, and pass nothing on: a host that is frozen."""
        self._run(self._become(open=False))

    def close(self) -> None:
        self.cut()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _become(
        self, *, delay_s: float = 0.0, refuses: bool = False, open: bool = True
    ) -> None:
        self._delay_s, self._refuses = delay_s, refuses
        if open:
            self._open.set()
        else:
            self._open.clear()
        if refuses:
            for writer in tuple(self._writers):
                _reset(writer)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            return _reset(writer)
        self._writers.add(writer)
        try:
            await self._open.wait()
            there_reader, there_writer = await asyncio.open_unix_connection(self._target)
        except OSError:  # the server is away
            self._writers.discard(writer)
            return _reset(writer)
        self._writers.add(there_writer)
        await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
        self._writers -= {writer, there_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await asyncio.sleep(self._delay_s)
                await self._open.wait()
                writer.write(data)
                await writer.drain()
            await self._open.wait()
        except OSError:
            pass  # one side is gone; so goes the other
        writer.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


def _reset(writer: asyncio.StreamWriter) -> None:
    there = writer.get_extra_info("socket")
    left_already = there is None or there.fileno() < 0
    if not left_already and there.family == socket.AF_INET:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
