"""Counts what processes ask of their database: a byte for each statement in one file, for each
transaction in another, so that all can count and anybody can read how far they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from captioning.glances import Glances

FILES = {
    "before_cursor_execute": "statements",
    "commit": "transactions",
    "rollback": "transactions",
}
BEGINS = ("BEGIN", "BEGIN IMMEDIATE")
"""How SQLite is told to begin; the driver of PostgreSQL does so by itself, uncounted."""


@dataclass(frozen=True)
class Counts:
    statements: int
    transactions: int

    def __sub__(self, before: Counts) -> Counts:
        return Counts(self.statements - before.statements, self.transactions - before.transactions)


def count_in(folder: Path, engine: type[Engine] | Engine = Engine) -> None:
    """Count what an engine, or any of this process, does from now on."""
    for name in set(FILES.values()):
        (folder / name).touch()
    for happened, name in FILES.items():
        _note(engine, happened, folder / name)
    _note_glances(folder / FILES["before_cursor_execute"])


def _note(engine: type[Engine] | Engine, happened: str, file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)

    def note(*what: Any) -> None:
        if happened != "before_cursor_execute" or what[2] not in BEGINS:
            os.write(descriptor, b".")

    event.listen(engine, happened, note)


def _note_glances(file: Path) -> None:
    """No engine is told of them."""
    descriptor, rows = os.open(file, os.O_WRONLY | os.O_APPEND), Glances.rows

    def noted(*asked: Any) -> Any:
        os.write(descriptor, b".")
        return rows(*asked)

    Glances.rows = noted  # type: ignore[method-assign]


def counts(folder: Path) -> Counts:
    return Counts(*((folder / name).stat().st_size for name in ("statements", "transactions")))
