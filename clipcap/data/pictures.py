"""Where an image lies: in a file, inside a tar archive, or nowhere any more, only its embedding.

A picture is opened when it is needed, from any thread, and keeps no file open.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from clipcap.errors import DataError
from clipcap.images import open_image


class Picture(Protocol):
    """An image that can be opened."""

    @property
    def name(self) -> str:
        """What people and result files know it by."""

    def open(self) -> Image.Image:
        """Upright RGB. Raises: DataError, naming the image."""

    def read(self) -> bytes:
        """The encoded image. Raises: DataError."""

    def stamp(self) -> str:
        """Changes when the image does, as far as can be told without reading it."""


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own."""

    path: Path
    name: str

    def open(self) -> Image.Image:
        return open_image(self.path)

    def read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror}") from error

    def stamp(self) -> str:
        stat = self.path.stat()
        name = f"{self.path.parent.name}/{self.path.name}"  # not all of it: data may move
        return f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}"


@dataclass(frozen=True)
class TarMember:
    """An image inside an uncompressed tar archive, read from where it lies."""

    archive: Path
    name: str
    offset: int
    size_bytes: int

    def open(self) -> Image.Image:
        return open_image(io.BytesIO(self.read()), name=f"{self.archive}, {self.name}")

    def read(self) -> bytes:
        try:
            with self.archive.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size_bytes)
        except OSError as error:
            raise DataError(f"{self.archive}: {error.strerror}") from error

    def stamp(self) -> str:
        stat = self.archive.stat()
        return f"{self.archive.name}/{self.name}\0{self.size_bytes}\0{stat.st_mtime_ns}"


@dataclass(frozen=True)
class StoredEmbedding:
    """An image of which only the embedding was kept: a row of a safetensors file."""

    file: Path
    row: int
    name: str

    def open(self) -> Image.Image:
        raise DataError(f"{self.file}: holds embeddings only, not the image {self.name}")

    def read(self) -> bytes:
        raise DataError(f"{self.file}: holds embeddings only, not the image {self.name}")

    def stamp(self) -> str:
        stat = self.file.stat()
        return f"{self.row}\0{stat.st_size}\0{stat.st_mtime_ns}"
