"""The photographs of files and folders, one after the other. What they show is not known here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from clipcap.errors import DataError

SUFFIXES = frozenset({
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png",
    ".tif", ".tiff", ".webp",
})  # fmt: skip
"""What photographs in folders are called, in lower case. What is inside decides how to read it."""


def find_photos(paths: Iterable[Path], report: Callable[[DataError], None]) -> Iterator[Path]:
    """Files as they are given, and the photographs of folders and all folders in them, by name.

    Hidden files, and what links to a folder, are left out, so that nothing goes in circles.
    At any time only the names of one folder and of those that it lies in are held. A folder
    that cannot be read is reported and passed over.
    """
    for path in paths:
        if os.path.isdir(path):  # Path.is_dir() raises what the open that follows will say better
            yield from _walk(path, report)
        else:
            yield path


def _walk(folder: Path, report: Callable[[DataError], None]) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            # By bytes: the order of names that are not UTF-8 must not depend on the locale.
            found = sorted(_photos_and_folders(entries), key=lambda each: os.fsencode(each[0]))
    except OSError as error:
        report(DataError(f"{folder}: {error.strerror}"))
        return
    for name, is_folder in found:
        if is_folder:
            yield from _walk(folder / name, report)
        else:
            yield folder / name


def _photos_and_folders(entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, bool]]:
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield entry.name, True
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and _can_be_tried(entry):
            yield entry.name, False


def _can_be_tried(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere is tried, so that it is reported; reading a pipe would hang."""
    if entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path):
        return True
    return not os.path.exists(entry.path)
