"""Webdataset tar shards as img2dataset writes them: in each, `KEY.jpg` beside `KEY.txt` or
`KEY.json`. Images are read where they lie in the tar; nothing is unpacked."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clipcap.data.example import Example, Findings, with_words
from clipcap.data.pictures import TarMember
from clipcap.errors import DataError

IMAGE_ENDINGS = {"jpg", "jpeg", "png", "webp"}
TEXT_ENDINGS = {"txt", "json"}


def read_shards(paths: Sequence[Path], findings: Findings) -> list[Example]:
    """A sample without a caption is left out, as sets from the web always have some.

    Raises: DataError, naming the shard.
    """
    examples = [example for path in paths for example in _read_shard(path, findings)]
    if not examples:
        raise DataError(f"{paths[0].parent}: no images with captions in {len(paths)} tar files")
    return examples


def _read_shard(path: Path, findings: Findings) -> Iterator[Example]:
    images: dict[str, TarMember] = {}
    texts: dict[str, dict[str, bytes]] = {}
    for key, ending, member, text in _members(path):
        if ending in IMAGE_ENDINGS:
            if key in images:
                findings.problem(f"{path}: {key} has two images")
            images[key] = TarMember(path, member.name, member.offset_data, member.size)
        elif ending in TEXT_ENDINGS:
            texts.setdefault(key, {})[ending] = text
    for key, image in images.items():
        where = f"{path}, {key}"
        captions = with_words(_captions(where, texts.get(key, {})), where, findings)
        if captions:
            yield Example(image, captions)
        else:
            findings.left_out(f"{where}: no caption")


def _members(path: Path) -> Iterator[tuple[str, str, tarfile.TarInfo, bytes]]:
    """Every file of a shard with its key and ending, and its content where it is text. A name
    is split at the first dot after the last slash, as webdataset does."""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, slash, name = member.name.rpartition("/")
                key, _, ending = name.partition(".")
                ending = ending.lower()
                file = archive.extractfile(member) if ending in TEXT_ENDINGS else None
                yield f"{folder}{slash}{key}", ending, member, file.read() if file else b""
    except tarfile.TarError as error:
        raise DataError(
            f"{path}: not a whole, uncompressed tar archive: {error}; images are read from "
            "inside it, so a compressed one must be uncompressed first"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _captions(where: str, texts: dict[str, bytes]) -> list[str]:
    """From the JSON `captions` where it lists several, else from the text, else from the JSON
    `caption`. Other columns of a data set's table stand in the JSON too."""
    try:
        row: Any = json.loads(texts["json"]) if "json" in texts else {}
        text = texts.get("txt", b"").decode("utf-8")
    except ValueError as error:
        raise DataError(f"{where}: its text is neither UTF-8 nor JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: its .json is no JSON object")
    several = row.get("captions")
    if isinstance(several, list):
        return [caption for caption in several if isinstance(caption, str)]
    one = text or row.get("caption")
    return [one] if isinstance(one, str) else []
