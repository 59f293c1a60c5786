"""JSON and JSON lines, gzipped or not, and captions without images."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipcap.data.example import is_text
from clipcap.errors import DataError


def read_texts(path: Path) -> list[tuple[str, ...]]:
    """Captions without images, those of one image together: JSON lines, gzipped or not, each with
    a `caption` or with `captions`, a list.

    Raises: DataError.
    """
    texts = []
    for number, row in json_lines(path):
        captions = row["captions"] if "captions" in row else [row.get("caption")]
        if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            raise DataError(f"{path}, line {number}: needs a 'caption' or a list of 'captions'")
        if not all(map(is_text, captions)):
            raise DataError(f"{path}, line {number}: holds half of a character (a lone surrogate)")
        texts.append(tuple(captions))
    return texts


def read_json_object(path: Path) -> dict[str, Any]:
    """Raises: DataError."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}: not a JSON object")
    return data


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each object with its line's number. Raises: DataError, naming the file and the line."""
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
