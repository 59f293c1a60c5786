"""Where image bytes are kept: a folder or an object store, by URL, through obstore."""

from __future__ import annotations

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
    def _store(self) -> ObjectStore:
        parts = urlsplit(self.url)
        if parts.scheme == "file":
            return LocalStore(Path(url2pathname(parts.path)), mkdir=True)
        return from_url(self.url, retry_config=RETRY, client_options=CLIENT)

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
        # Not one image is missing but all of them: a wrong URL must not fail jobs for good.
        if any(code in str(error) for code in NO_BUCKET):
            raise StorageUnavailable("The bucket of the image store does not exist.") from error
        raise ImageNotFound(f"{key} is not in the image store.") from error
    except (obstore.exceptions.BaseError, OSError) as error:
        # obstore appends a multi-line dump of its source to the message
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StorageUnavailable(f"The image store cannot be reached: {reason}") from error
