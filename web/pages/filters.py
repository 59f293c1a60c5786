"""What the gallery can be asked for, as it stands in the address of a page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta

from captioning.errors import InvalidOption
from captioning.finding import Wanted
from captioning.models import JobStatus

SHELVES: dict[str, tuple[str, frozenset[JobStatus]]] = {
    "captioned": ("Captioned", frozenset({JobStatus.SUCCEEDED})),
    "waiting": ("Waiting", frozenset({JobStatus.QUEUED, JobStatus.RUNNING})),
    "failed": ("Failed", frozenset({JobStatus.FAILED})),
    "cancelled": ("Cancelled", frozenset({JobStatus.CANCELLED})),
    "all": ("All", frozenset()),
}
FIRST_SHELF = "captioned"
NAMES = ("show", "q", "model", "from", "to")
MAX_CHARACTERS = 200

A_MOMENT = timedelta(milliseconds=1)


def asked(values: Mapping[str, str]) -> dict[str, str]:
    """What is asked for, without what is left open."""
    return {name: values[name] for name in NAMES if values.get(name)}


def wanted(asked: Mapping[str, str], *, upto: str | None = None) -> Wanted:
    """Raises: InvalidOption."""
    shelf = asked.get("show", FIRST_SHELF)
    if shelf not in SHELVES:
        raise InvalidOption(f"show must be one of {', '.join(SHELVES)}.")
    if len(asked.get("q", "")) > MAX_CHARACTERS:
        raise InvalidOption(f"Search for {MAX_CHARACTERS} characters at most.")
    first, last = _midnight(asked.get("from")), _midnight(asked.get("to"))
    return Wanted(
        statuses=SHELVES[shelf][1],
        model=asked.get("model"),
        words=asked.get("q", ""),
        after=first and first - A_MOMENT,
        before=last and last + timedelta(days=1),
        upto=upto,
    )


def _midnight(day: str | None) -> datetime | None:
    """At which the day begins, UTC."""
    if day is None:
        return None
    try:
        found = date.fromisoformat(day)
    except ValueError as error:
        raise InvalidOption("A day is written as 2026-12-31.") from error
    if not 1970 <= found.year <= 9000:
        raise InvalidOption("The year must be from 1970 to 9000.")
    return datetime.combine(found, time(), UTC)
