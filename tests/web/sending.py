"""Files as a client sends them, good and bad, and what is kept of them."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
from sqlalchemy import func, select

from captioning.models import Batch, Image, Job
from captioning.queue import Queue
from tests.factories import photo

Part = tuple[io.BytesIO, str]


def part(data: bytes, filename: str = "photo.jpg") -> Part:
    return io.BytesIO(data), filename


def photos(count: int) -> list[Part]:
    return [part(photo(colour=(i, 90, 120)), f"photo-{i}.jpg") for i in range(count)]


def form(field: str, parts: list[Part], **fields: str) -> dict[str, Any]:
    """What a client's `post` takes to send these files. Encoded by httpx: Werkzeug's own
    encoder leaves the temporary file open that it needs for large ones."""
    files = [(field, (filename, data)) for data, filename in parts]
    sent = httpx.Request("POST", "http://localhost", files=files, data=fields)
    return {"data": sent.read(), "content_type": sent.headers["Content-Type"]}


@cache
def bad_file(kind: str) -> bytes:
    """The bytes of one kind of file that cannot be captioned."""
    match kind:
        case "zero-byte":
            return b""
        case "text":
            return b"Once upon a time there was a photograph.\n" * 50
        case "wrong type":
            return photo(format="TIFF")
        case "truncated":
            return photo((400, 300))[:800]
        case "bomb":  # 50 million pixels in a few kilobytes
            return photo((8000, 6250), mode="1", colour=0, format="PNG")
        case "40 MB":
            return photo() + bytes(40_000_000)
    raise AssertionError(kind)


BAD_FILES = {
    "zero-byte": (400, "image_empty", "empty"),
    "text": (415, "unsupported_image_type", "JPEG"),
    "wrong type": (415, "unsupported_image_type", "JPEG"),
    "truncated": (422, "image_unreadable", "damaged or cut off"),
    "bomb": (422, "image_too_many_pixels", "8000 x 6250"),
    "40 MB": (413, "image_too_large", "20 MB"),
}
"""Kind: (status of a single upload, code, words of the message)."""


def kept(queue: Queue) -> tuple[int, int, int, int]:
    """What is stored: image rows, batch rows, job rows, files."""
    with queue.database.read() as session:
        images, batches, jobs = (
            session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Image, Batch, Job)
        )
    root = Path(url2pathname(urlsplit(queue.settings.storage_url).path))
    return images, batches, jobs, sum(path.is_file() for path in root.rglob("*"))


NOTHING = (0, 0, 0, 0)
