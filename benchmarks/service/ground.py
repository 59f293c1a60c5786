"""What a part is measured on: a database, a broker and a store of its own, and real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from captioning import queries
from captioning.migrate import migrate
from captioning.queue import Queue
from captioning.settings import PREFIX, Settings
from tests.acceptance.service import free_port
from tests.servers import postgresql, valkey

WAIT_S = 300
POLL_S = 0.02
Process = subprocess.Popen[bytes]


class Ground:
    """One queue, and whatever processes are started on it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = {"data_dir": folder, "port": free_port(), **settings}
        self.settings = Settings(**given)
        self.queue = Queue(self.settings)
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.storage = folder / "storage"
        self.environment = {name: v for name, v in os.environ.items() if PREFIX not in name}
        self.environment |= {f"{PREFIX}{name.upper()}": str(v) for name, v in given.items()}
        self._log = folder / "log"

    @contextmanager
    def process(self, module: str, *arguments: str) -> Iterator[Process]:
        """`python -m module`, ended with the block. What it has said is shown if it dies early."""
        with self._log.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  (the project's own modules)
                [sys.executable, "-m", module, *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
            if process.poll() is not None:
                raise RuntimeError(self._log.read_text())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT_S)

    @contextmanager
    def workers(self, count: int = 1, module: str = "worker", *arguments: str) -> Iterator[Process]:
        """A process that has started so many workers, once they have loaded their models."""
        with self.process(module, *arguments) as process:
            self.wait_until(lambda: self._alive() == count, process)
            yield process

    @contextmanager
    def web(self, module: str = "web") -> Iterator[Process]:
        with self.process(module) as process:
            self.wait_until(self._answers, process)
            yield process

    def wait_until(
        self,
        condition: Callable[[], Any],
        process: Process | None = None,
        *,
        poll_s: float = POLL_S,
    ) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline or (process and process.poll() is not None):
                raise RuntimeError(self._log.read_text())
            time.sleep(poll_s)

    def _alive(self) -> int:
        with self.queue.database.read() as session:
            return len(queries.live_workers(session))

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").is_success
        except httpx.TransportError:
            return False


@contextmanager
def ground(kind: str, models: str = "bundled", **settings: Any) -> Iterator[Ground]:
    """An empty one on a database of kind `sqlite` or `postgresql`, and an empty Valkey.

    The servers are those of the tests: nothing that they write waits for a disk.
    """
    valkey().client.flushall()
    folder = Path(tempfile.mkdtemp(prefix="captioning-bench-"))
    given = {"models": models, "broker_url": valkey().url, **settings}
    try:
        if kind == "sqlite":
            yield from _on(folder, given)
        else:
            with postgresql().database() as url:
                yield from _on(folder, given | {"database_url": url})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _on(folder: Path, settings: dict[str, Any]) -> Iterator[Ground]:
    made = Ground(folder, **settings)
    try:
        migrate(made.queue.database)
        yield made
    finally:
        made.queue.close()
