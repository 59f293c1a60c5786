"""The record of running children, by which the next start finds those that outlived a killed
supervisor. A process is known by its id and the moment of its creation: ids are reused."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)

SAME_MOMENT_S = 1.0
"""The kernel counts creation times from boot in ticks; the clock may have been set since."""
STOP_S = 30


class Record:
    """A file of `{name: {pid, created}}`, replaced whole at each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[str, float]] = {}

    def add(self, name: str, pid: int) -> None:
        try:
            created = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return
        self._entries[name] = {"pid": pid, "created": created}
        self._save()

    def remove(self, name: str) -> None:
        if self._entries.pop(name, None):
            self._save()

    def leftovers(self) -> dict[str, psutil.Process]:
        """Children of an earlier supervisor that are still alive."""
        return {
            name: process
            for name, entry in self._read().items()
            if (process := _find(int(entry["pid"]), entry["created"])) is not None
        }

    def _read(self) -> Mapping[str, Mapping[str, float]]:
        try:
            entries = json.loads(self._path.read_text())
            return {name: {key: float(entry[key]) for key in ("pid", "created")}
                    for name, entry in entries.items()}  # fmt: skip
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}  # none yet, or cut short by a full disk: there is nothing to be found in it

    def _save(self) -> None:
        draft = self._path.with_suffix(".new")
        try:
            draft.write_text(json.dumps(self._entries))
            draft.replace(self._path)
        except OSError as error:  # a full disk costs the record, not the service
            logger.warning("the record of children is not written: %s", error)


def _find(pid: int, created: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < SAME_MOMENT_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def end(process: psutil.Process, stop_s: float = STOP_S) -> None:
    """Stop a process and its descendants: SIGTERM to the process, which sees to its own, and
    after `stop_s` SIGKILL to whatever is left. psutil signals no reused id."""
    try:
        family = [process, *process.children(recursive=True)]
        process.terminate()
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs(family, timeout=stop_s)
    for survivor in alive:
        try:
            survivor.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=stop_s)
