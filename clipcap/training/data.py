"""Reading captioned images: a folder with `metadata.jsonl`, one line an image:

{"file_name": "beach.jpg", "captions": ["a dog on a beach", "a wet dog runs"]}
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcap.errors import DataError

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Example:
    """One image and its reference captions."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """What is trained on and what is only measured on."""

    train: list[Example]
    dev: list[Example]


def read_folder(folder: Path) -> list[Example]:
    """Raises: DataError, naming the file and the line."""
    metadata = folder / METADATA
    examples: dict[str, Example] = {}
    for number, row in _json_lines(metadata):
        where = f"{metadata}, line {number}"
        name, captions = row.get("file_name"), row.get("captions")
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: 'file_name' is missing")
        if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            raise DataError(f"{where}: 'captions' must be a list of texts")
        kept = tuple(caption for caption in captions if re.search(r"\w", caption))
        if not kept:
            raise DataError(f"{where}: {name} has no caption")
        if not (folder / name).is_file():
            raise DataError(f"{where}: {folder / name}: no such file")
        if name in examples:  # one copy could be trained on and the other held out
            raise DataError(f"{where}: {name} is listed twice; give it one line, with all captions")
        examples[name] = Example(folder / name, kept)
    if not examples:
        raise DataError(f"{metadata}: no images")
    return list(examples.values())


def read_splits(data: Path, *, held_out: float, seed: int) -> Splits:
    """`train` and `dev` folders where there are both; else one folder, of which a share of the
    images, the same for the same seed, is held out.

    Raises: DataError.
    """
    if (data / "train").is_dir() and (data / "dev").is_dir():
        return Splits(read_folder(data / "train"), read_folder(data / "dev"))
    examples = read_folder(data)
    count = max(1, round(len(examples) * held_out))
    if count >= len(examples):
        raise DataError(f"{data}: {len(examples)} images are too few to hold any out")
    shuffled = random.Random(seed).sample(examples, len(examples))  # noqa: S311 (no secret)
    return Splits(shuffled[count:], shuffled[:count])


def read_evaluation_set(data: Path) -> list[Example]:
    """The images of a folder, or of its `dev` folder. Raises: DataError."""
    return read_folder(data if (data / METADATA).is_file() else data / "dev")


def read_texts(path: Path) -> list[str]:
    """Captions without images: JSON lines with a `caption` each, gzipped or not.

    Raises: DataError.
    """
    texts = []
    for number, row in _json_lines(path):
        caption = row.get("caption")
        if not isinstance(caption, str):
            raise DataError(f"{path}, line {number}: 'caption' is missing")
        texts.append(caption)
    return texts


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{path}, line {number}: not a JSON object")
                yield number, row
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not JSON: {error}") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
