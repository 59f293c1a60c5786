"""Jobs as files for people to take home: a table, and a ZIP of texts that lie beside the
photographs. Made piece by piece, as jobs are read; nothing here knows of HTTP."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from captioning.models import Job

COLUMNS = (
    "filename",
    "caption",
    "alt",
    "edited",
    "decorative",
    "model_caption",
    "mean_log_probability",
    "model",
    "model_revision",
    "status",
    "error",
    "job_id",
    "created_at",
)
BYTE_ORDER_MARK = "\ufeff"
"""Spreadsheets take a file that begins with it for UTF-8, and any other for what they like."""

FORMULA = re.compile(r'(^|;)(?=[\s"]*[=+\-@＝＋－＠|%]|[\t\r\n])')  # noqa: RUF001  (wide ones count, too)
"""Where a cell begins that a spreadsheet may run, once opened: in some languages behind a
semicolon, too. Source: OWASP, CSV injection."""

NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[\d¹²³])(\..*)?", re.IGNORECASE)  # by Windows
MAX_NAME = 100
MAX_NAME_BYTES = 240
"""Most file systems take 255 for a name with its ending and number."""


def as_csv(jobs: Iterable[Job]) -> Iterator[str]:
    """A line for each job, after one that names the columns (RFC 4180, with a byte order mark)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    yield BYTE_ORDER_MARK
    for row in _rows(jobs):
        writer.writerow(row)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def as_zip(jobs: Iterable[Job]) -> Iterator[bytes]:
    """`photo.txt` with the text of `photo.jpg`, for each job that has one. A decorative
    photograph's is empty, as its alt is."""
    sink = _Sink()
    names = _Names()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for job in jobs:
            if job.alt is None:
                continue
            moment = job.created_at.timetuple()[:6]
            entry = zipfile.ZipInfo(names.beside(job.image.filename), moment)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, f"{job.alt}\n" if job.alt else "", zipfile.ZIP_DEFLATED)
            yield sink.taken()
    yield sink.taken()


def _rows(jobs: Iterable[Job]) -> Iterator[Iterable[object]]:
    yield COLUMNS
    for job in jobs:
        best = job.captions[0] if job.captions else None
        yield (
            _harmless(job.image.filename),
            _harmless(job.text or ""),
            _harmless(job.alt or ""),
            "yes" if job.edited_text is not None else "no",
            "yes" if job.decorative else "no",
            _harmless(best.text if best else ""),
            f"{best.mean_log_probability:.4f}" if best else "",
            _harmless(job.model),
            _harmless(best.model_revision if best else ""),
            job.status,
            _harmless(job.error_message or ""),
            job.id,
            job.created_at.isoformat(timespec="seconds"),
        )


def _harmless(text: str) -> str:
    """An apostrophe before it makes a cell text, in any spreadsheet."""
    return FORMULA.sub(r"\1'", text)


class _Names:
    """Names within an archive: none leads out of it, and no two are one, not on file systems
    that tell no capital letters apart either."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def beside(self, filename: str) -> str:
        """The name of the text beside the photograph of that name."""
        composed = unicodedata.normalize("NFC", filename)  # for some file systems it is the same
        stem = NOT_IN_NAMES.sub("_", "".join(c for c in composed if c.isprintable()))
        stem = PurePath(stem).stem.strip(". ")[:MAX_NAME]
        stem = stem.encode()[:MAX_NAME_BYTES].decode(errors="ignore").rstrip(". ") or "photograph"
        if RESERVED.fullmatch(stem):
            stem = f"_{stem}"
        name, number = f"{stem}.txt", 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{stem}-{number}.txt"
        self._taken.add(name.casefold())
        return name


class _Sink(io.RawIOBase):
    """What a ZIP is written to, piece by piece. It cannot be sought in, so the archive says the
    size of each entry after it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # zipfile hands over bytes
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
