"""Where image bytes are kept: a folder or an object store, by URL, through obstore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore.exceptions
from obstore.store import LocalStore, ObjectStore, from_url

from captioning.errors import ImageNotFound, StorageUnavailable


class Storage:
    """Objects by key. Connects on first use; safe to share between threads.

    Raises (every method): StorageUnavailable.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _store(self) -> ObjectStore:
        parts = urlsplit(self.url)
        if parts.scheme == "file":
            return LocalStore(Path(url2pathname(parts.path)), mkdir=True)
        return from_url(self.url)

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole: a reader sees all of it or nothing."""
        with _errors_as_ours(key):
            self._store.put(key, data)

    def get(self, key: str) -> bytes:
        """Raises: ImageNotFound."""
        with _errors_as_ours(key):
            return bytes(self._store.get(key).bytes())

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are fine."""
        for key in keys:
            try:
                with _errors_as_ours(key):
                    self._store.delete(key)
            except ImageNotFound:
                continue


@contextmanager
def _errors_as_ours(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ImageNotFound(f"{key} is not in the image store.") from error
    except (obstore.exceptions.BaseError, OSError) as error:
        # obstore appends a multi-line dump of its source to the message
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StorageUnavailable(f"The image store cannot be reached: {reason}") from error
