"""What was sent as uploads: files of a multipart form, one in memory at a time, or the address
of an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import BoundedSemaphore

from apiflask import APIFlask
from flask import current_app, request
from werkzeug.datastructures import FileStorage

from captioning import fetching
from captioning.errors import Unavailable
from captioning.queue import Upload
from web.current import queue


def init_app(app: APIFlask) -> None:
    # A slow site holds the thread that fetches from it: most of them stay free for others.
    threads = app.extensions["captioning"].settings.web_threads
    app.extensions["captioning.fetching"] = BoundedSemaphore(max(threads // 4, 1))


def sent_files(field: str) -> list[FileStorage]:
    """The files of a field. A browser whose user chose none sends a part without a name."""
    return [part for part in request.files.getlist(field) if part.filename]


def uploads(parts: Iterable[FileStorage]) -> Iterator[Upload]:
    """Read each file when it is asked for, and no further than tells that it is too large."""
    limit = queue().settings.max_image_bytes + 1
    for part in parts:
        with part.stream:
            yield Upload(part.filename or "", part.stream.read(limit))


def fetched(url: str) -> Upload:
    """Raises: ImageUrlRefused, ImageUnfetchable, ImageTooLarge, Unavailable."""
    seats: BoundedSemaphore = current_app.extensions["captioning.fetching"]
    if not seats.acquire(blocking=False):
        raise Unavailable("Too many images are being fetched just now.")
    try:
        return fetching.fetch_allowed(url, queue().settings)
    finally:
        seats.release()
