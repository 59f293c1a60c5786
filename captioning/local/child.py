"""One child process: started, watched, restarted after a pause, stopped."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from captioning.local.folder import DataFolder
from captioning.local.record import Record, end

STEADY_S = 60
"""A child that has lived for so long was well: what ends it later is a new story."""
LAST_PAUSE_S = 30.0
LOG_MAX_BYTES = 10_000_000


@dataclass(frozen=True)
class ChildSpec:
    """What to start. The next child is not started before this one `answers`."""

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 10
    answers: Callable[[], bool] = lambda: True


class Child:
    """A place for one process at a time. Its output goes to its log in the data folder."""

    def __init__(self, spec: ChildSpec, folder: DataFolder, record: Record) -> None:
        self.spec = spec
        self.name = spec.name
        self.log = folder.log(spec.name)
        self.failures = 0
        self._record = record
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_again_at = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Raises: OSError when there is no such program."""
        self._rotate_log()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  (our own commands, no shell)
                self.spec.command,
                env={**os.environ, **self.spec.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches the supervisor alone, which stops us in order.
                start_new_session=True,
            )
        self._started_at = time.monotonic()
        self._record.add(self.name, self._process.pid)

    def reap(self) -> int | None:
        """The exit code (negative: the signal), once, when the process has ended by itself.
        `restart_when_due` then starts another after a pause that doubles with each failure."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._forget()
        if time.monotonic() - self._started_at >= STEADY_S:
            self.failures = 0
        self._failed()
        return code

    @property
    def pause_s(self) -> float:
        return float(min(2 ** (self.failures - 1), LAST_PAUSE_S))

    def restart_when_due(self) -> None:
        """Raises: OSError; it is then due again later."""
        if self._process is None and time.monotonic() >= self._start_again_at:
            try:
                self.start()
            except OSError:
                self._failed()
                raise

    def stop(self, stop_s: float | None = None) -> None:
        """SIGTERM, and SIGKILL to what is left after `stop_s`."""
        if self._process is None:
            return
        if self._process.poll() is None:
            end(psutil.Process(self._process.pid), self.spec.stop_s if stop_s is None else stop_s)
            self._process.wait()
        self._forget()

    def last_words(self) -> str:
        """The last line that it logged, for people to see why it ended."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(log.seek(0, os.SEEK_END) - 4096, 0))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _failed(self) -> None:
        self.failures += 1
        self._start_again_at = time.monotonic() + self.pause_s

    def _forget(self) -> None:
        self._process = None
        self._record.remove(self.name)

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
