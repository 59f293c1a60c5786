"""Where image bytes are kept: a folder or an object store, by URL, through obstore."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore.exceptions
from obstore.store import LocalStore, ObjectStore, from_url

from captioning.errors import ImageNotFound, StorageUnavailable

# An upload waits for a store that is away no longer than its sender would: by themselves the
# clients of object stores try for three minutes.
RETRY: dict[str, Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
CLIENT: dict[str, Any] = {
    "connect_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=10),
    "allow_http": True,  # where the endpoint is http://, and only there
}
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")


class Storage:
    """Objects by key. Connects on first use; safe to share between threads.

    Raises (every method): StorageUnavailable.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _folder(self) -> Path | None:
        parts = urlsplit(self.url)
        return Path(url2pathname(parts.path)) if parts.scheme == "file" else None

    @cached_property
    def _store(self) -> ObjectStore:
        if self._folder:
            return LocalStore(self._folder, mkdir=True)
        return from_url(self.url, retry_config=RETRY, client_options=CLIENT)

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole: a reader sees all of it or nothing, and what has been
        written outlives a power cut, as the row of its job does."""
        with _errors_as_ours(key):
            self._store.put(key, data)
            if self._folder:
                _sync(self._folder, key)

    def get(self, key: str) -> bytes:
        """Raises: ImageNotFound."""
        with _errors_as_ours(key):
            return bytes(self._store.get(key).bytes())

    def free_bytes(self) -> int | None:
        """Room on the disk of a folder; None for an object store, which has no end."""
        if not self._folder:
            return None
        with _errors_as_ours("/"):
            self._folder.mkdir(parents=True, exist_ok=True)
            return shutil.disk_usage(self._folder).free

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are fine."""
        for key in keys:
            try:
                with _errors_as_ours(key):
                    self._store.delete(key)
            except ImageNotFound:
                continue


def _sync(folder: Path, key: str) -> None:
    """Flush a file, then its name and those of the folders above it."""
    path = folder / key
    for entry in (path, *path.parents):
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if entry == folder:
            break


@contextmanager
def _errors_as_ours(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        # Not one image is missing but all of them: a wrong URL must not fail jobs for good.
        if any(code in str(error) for code in NO_BUCKET):
            raise StorageUnavailable("The bucket of the image store does not exist.") from error
        raise ImageNotFound(f"{key} is not in the image store.") from error
    except (obstore.exceptions.BaseError, OSError) as error:
        # obstore appends a multi-line dump of its source to the message
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StorageUnavailable(f"The image store cannot be reached: {reason}") from error
