"""What was sent as uploads: files of a multipart form, one in memory at a time, or the address
of an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flask import request
from werkzeug.datastructures import FileStorage

from captioning import fetching
from captioning.errors import ImageUrlRefused
from captioning.queue import Upload
from web.current import queue


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
    """Raises: ImageUrlRefused, ImageUnfetchable, ImageTooLarge."""
    settings = queue().settings
    if not settings.fetch_image_urls:
        raise ImageUrlRefused("This service fetches no images by their addresses.")
    return fetching.fetch(url, max_bytes=settings.max_image_bytes)
