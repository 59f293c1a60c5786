"""What was sent as uploads: files of a multipart form, one in memory at a time, or the address
of an image. All that comes without files is short."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import BoundedSemaphore
from typing import Any

from apiflask import APIFlask
from flask import current_app, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.datastructures import FileStorage

from captioning import fetching
from captioning.errors import Unavailable
from captioning.queue import Upload
from web.current import queue, whole_queue

WITHOUT_FILES_MAX_BYTES = 100_000


class Json(DefaultJSONProvider):
    sort_keys = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Raises: ValueError, of what lies too deep to be read, too."""
        try:
            return super().loads(s, **kwargs)
        except RecursionError as error:
            raise ValueError("It lies too deep.") from error


def init_app(app: APIFlask) -> None:
    app.before_request(_expect_files)
    # A slow site holds the thread that fetches from it: most of them stay free for others.
    threads = app.extensions["captioning"].settings.web_threads
    app.extensions["captioning.fetching"] = BoundedSemaphore(max(threads // 4, 1))


def _expect_files() -> None:
    """All else is short, as the application's limits say: JSON is read at once, and no other
    thread runs meanwhile; 3 MB of it may take seconds."""
    if request.mimetype == "multipart/form-data":
        request.max_content_length = whole_queue().settings.max_upload_bytes


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
