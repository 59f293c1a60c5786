"""The data folder: everything that the service writes lies in it, and one service owns it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captioning.local.errors import StartError


class DataFolder:
    """The paths in it. `owned` makes it and keeps others out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "run.lock"
        self.children = path / "children.json"
        self.logs = path / "logs"
        self.valkey = path / "valkey"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder for this process. The kernel lets go of it however we die.

        Raises: StartError when it cannot be made or written to, or another process has it.
        """
        self._make()
        with self.lock.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                pid = lock.read().strip() or "unknown"
                raise StartError(
                    f"The service is already running on {self.path} (process {pid}). "
                    "Stop it, or choose another folder by CAPTIONING_DATA_DIR."
                ) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    def _make(self) -> None:
        try:
            # Photographs are private: nobody else on the machine need see them.
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            self.valkey.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
            self.lock.touch()
        except OSError as error:
            reason = f"{error.filename or self.path}: {error.strerror}"
            raise StartError(f"The data folder cannot be used: {reason}.") from error
