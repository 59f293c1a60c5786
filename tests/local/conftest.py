"""A data folder that this test owns, and children that are real but do little."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from captioning.local.child import Child, ChildSpec
from captioning.local.folder import DataFolder
from captioning.local.record import Record

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
DYING = "import sys; print('no such model'); sys.exit(3)"
WAIT_S = 30


class MakeChild(Protocol):
    def __call__(self, code: str, name: str = "sleeper", **spec: Any) -> Child: ...


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data")
    with folder.owned():
        yield folder


@pytest.fixture
def record(folder: DataFolder) -> Record:
    return Record(folder.children)


@pytest.fixture
def make_child(folder: DataFolder, record: Record) -> Iterator[MakeChild]:
    children: list[Child] = []

    def make(code: str, name: str = "sleeper", **spec: Any) -> Child:
        child = Child(ChildSpec(name, [sys.executable, "-c", code], **spec), folder, record)
        children.append(child)
        return child

    yield make
    for child in children:
        child.stop(0)


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def is_up(child: Child) -> Callable[[], bool]:
    return lambda: child.last_words() == "up"
