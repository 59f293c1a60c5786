"""Where image bytes are kept: a folder or an object store, by URL, through obstore."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
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
PROBE_KEY = "probe"
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
WRITERS = 16
"""Objects that are written at once: what takes the time is to wait for a disk or a network."""


class Storage:
    """Objects by key. Connects on first use; safe to share between threads.

    Raises (every method): StorageUnavailable.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._flushed: set[Path] = set()

    @cached_property
    def _folder(self) -> Path | None:
        parts = urlsplit(self.url)
        return Path(url2pathname(parts.path)) if parts.scheme == "file" else None

    @cached_property
    def _store(self) -> ObjectStore:
        if self._folder:
            return LocalStore(self._folder)
        return from_url(self.url, retry_config=RETRY, client_options=CLIENT)

    @cached_property
    def _writers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(WRITERS, thread_name_prefix="store")

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        """Write objects by key, several at once. Where one fails, none is still under way when
        it says so: whoever removes them removes all."""
        writing = [self._writers.submit(self.put, key, data) for key, data in objects.items()]
        wait(writing, return_when=FIRST_EXCEPTION)
        begun = [each for each in writing if not each.cancel()]
        wait(begun)
        for each in begun:
            each.result()

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole: a reader sees all of it or nothing, and what has been
        written outlives a power cut, as the row of its job does."""
        with _errors_as_ours(key):
            if self._folder:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._store.put(key, data)
            if self._folder:
                self._flush(self._folder, key)

    def _flush(self, folder: Path, key: str) -> None:
        """A file and its name, and once the names of the folders that it lies in."""
        path = folder / key
        its_folder, *above = path.parents[: len(Path(key).parts)]
        _sync(path)
        _sync(its_folder)
        if its_folder not in self._flushed:
            for each in above:
                _sync(each)
            self._flushed.add(its_folder)

    def get(self, key: str) -> bytes:
        """Raises: ImageNotFound."""
        with _errors_as_ours(key):
            self._require_content()
            return bytes(self._store.get(key).bytes())

    def try_writing(self) -> None:
        """Whether it takes anything: it writes an object of no use."""
        self.put(PROBE_KEY, b"")

    def is_away(self) -> bool:
        """Whether it can be read from at all: not one object is the matter then, but all."""
        try:
            with _errors_as_ours("/"):
                self._require_content()
                next(iter(self._store.list(chunk_size=1)), None)
        except StorageUnavailable:
            return True
        return False

    def _require_content(self) -> None:
        """Not one image is missing but all of them, where a disk is not mounted."""
        if self._folder and not (
            self._folder.is_dir() and any(each.name != PROBE_KEY for each in self._folder.iterdir())
        ):
            missing = FileNotFoundError(str(self._folder))  # said in the log, and not to everybody
            raise StorageUnavailable(f"There is nothing in {self._folder}.") from missing

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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
