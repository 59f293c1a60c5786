"""The photographs of files and folders, by their names. What is inside is not known here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

SUFFIXES = (
    ".avif", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".webp",
)  # fmt: skip


def find_photos(paths: Iterable[str], report: Callable[[OSError], None]) -> Iterator[str]:
    """Files as they are given; of folders, and all folders in them, the photographs by name.

    Hidden ones, and what links to a folder, are left out, so that nothing goes in circles.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, files in os.walk(path, onerror=report):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                file = os.path.join(folder, name)
                wanted = name.lower().endswith(SUFFIXES) and not name.startswith(".")
                if wanted and os.path.isfile(file):  # reading a pipe would hang
                    yield file
