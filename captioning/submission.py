"""What `captioning submit` does: photographs go in, a line for each comes out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from captioning import fetching
from captioning.errors import ImageRejected, NoImage
from captioning.folders import find_photos
from captioning.models import Job, JobStatus
from captioning.queue import JobHandle, Queue, Upload

AHEAD = 64
"""Photographs that are queued at most before the first of them is waited for."""

Line = dict[str, Any]


def submit(
    queue: Queue,
    paths: Sequence[str],
    *,
    wait: bool,
    timeout_s: float,
    jsonl: bool,
    out: Path | None,
    **options: Any,
) -> bool:
    """Hand in the photographs of files, folders and addresses and say what became of each, as
    it comes; whether all went well. What `out` has a caption for is left alone.

    Raises: UnknownModel, InvalidOption, Unavailable; OSError, of `out`.
    """
    unread: list[OSError] = []
    captioned = _captioned_in(out) if out else set()
    photos = [path for path in find_photos(paths, unread.append) if path not in captioned]
    for failure in unread:
        _complain(str(failure.filename), failure.strerror or "cannot be read")
    patience_s = timeout_s if wait or out else None
    lines = _hand_in(queue, photos, options, patience_s)
    if out:
        with out.open("a", 1, encoding="utf-8", errors="surrogateescape") as file:
            lines = _written_to(file.write, lines)
            return _tell(lines, len(photos), None) and not unread
    return _tell(lines, len(photos), _as_json if jsonl else _as_text) and not unread


def _hand_in(
    queue: Queue, photos: Sequence[str], options: dict[str, Any], patience_s: float | None
) -> Iterator[Line]:
    """A line for each photograph: its job, or with patience its outcome.

    Patience ends when no job has finished for so long; then nothing more is handed in.
    """
    in_hand: deque[tuple[str, JobHandle]] = deque()
    left = deque(photos)
    gave_up_at = time.monotonic() + (patience_s or 0)
    while left or in_hand:
        if left and len(in_hand) < AHEAD:
            photo = left.popleft()
            try:
                handle = queue.submit(_source(queue, photo), **options)
            except (ImageRejected, NoImage) as error:
                yield {"photo": photo, "error": error.code, "message": str(error)}
                continue
            if patience_s is None:
                yield {"photo": photo, "job": handle.id}
            else:
                in_hand.append((photo, handle))
            continue
        photo, handle = in_hand.popleft()
        handle.wait(max(gave_up_at - time.monotonic(), 0))
        job = handle.read()
        if JobStatus(job.status).finished:
            gave_up_at = time.monotonic() + (patience_s or 0)
        else:
            left.clear()
        yield _outcome(photo, job)


def _source(queue: Queue, photo: str) -> str | Callable[[], Upload]:
    """A path, or what fetches from an address."""
    if photo.startswith(("http://", "https://")):
        return lambda: fetching.fetch_allowed(photo, queue.settings)
    return photo


def _outcome(photo: str, job: Job) -> Line:
    line: Line = {"photo": photo, "job": job.id, "status": job.status}
    line["captions"] = [caption.text for caption in job.captions]
    line["error"] = job.error_code
    if job.status != JobStatus.SUCCEEDED:
        line["message"] = job.error_message or f"still {job.status}, job {job.id}"
    return line


def _tell(lines: Iterator[Line], total: int, show: Callable[[Line], str | None] | None) -> bool:
    """Print each line and complain of what went wrong; whether nothing did."""
    well = True
    # Beside captions on the same terminal a bar would only be in the way.
    hidden = not sys.stderr.isatty() or (show is not None and sys.stdout.isatty())
    with click.progressbar(length=total, file=sys.stderr, hidden=hidden, show_pos=True) as bar:
        for line in lines:
            message = line.pop("message", None)
            if message:
                well = False
                _complain(line["photo"], message)
            text = show(line) if show else None
            if text:
                click.echo(text)
            bar.update(1)
    return well and bar.pos == total


def _as_json(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False)


def _as_text(line: Line) -> str | None:
    if "captions" in line:
        return "\n".join(f"{line['photo']}\t{text}" for text in line["captions"])
    return line.get("job")


def _written_to(write: Callable[[str], object], lines: Iterator[Line]) -> Iterator[Line]:
    for line in lines:
        kept = {name: value for name, value in line.items() if name != "message"}
        write(_as_json(kept) + "\n")
        yield line


def _captioned_in(out: Path) -> set[str]:
    """The photographs that `out` has captions for. Other lines, and one that was cut off,
    are removed: their photographs are handed in again.

    Raises: OSError.
    """
    if not out.exists():
        return set()
    kept: dict[str, str] = {}
    # Not splitlines(): a caption may hold what some take for the end of a line.
    for text in out.read_text(encoding="utf-8", errors="surrogateescape").split("\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line.get("captions"):
            kept[line["photo"]] = text
    beside = out.with_name(f"{out.name}.part")
    beside.write_text(
        "".join(f"{text}\n" for text in kept.values()), encoding="utf-8", errors="surrogateescape"
    )
    os.replace(beside, out)
    return set(kept)


def _complain(photo: str, reason: str) -> None:
    # An error of reading names the file already.
    click.echo(reason if reason.startswith(photo) else f"{photo}: {reason}", err=True)
