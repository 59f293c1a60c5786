"""A folder of images with `metadata.jsonl`, one line an image:

{"file_name": "beach.jpg", "captions": ["a dog on a beach", "a wet dog runs"]}
"""

from __future__ import annotations

from pathlib import Path

from clipcap.data.example import REFUSE, Example, Findings, with_words
from clipcap.data.pictures import ImageFile
from clipcap.data.texts import json_lines
from clipcap.errors import DataError

METADATA = "metadata.jsonl"


def read_folder(folder: Path, findings: Findings = REFUSE) -> list[Example]:
    """Raises: DataError, naming the file and the line."""
    metadata = folder / METADATA
    examples: dict[str, Example] = {}
    for number, row in json_lines(metadata):
        where = f"{metadata}, line {number}"
        name, captions = row.get("file_name"), row.get("captions")
        if not isinstance(name, str) or not name:
            findings.problem(f"{where}: 'file_name' is missing")
        elif not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            findings.problem(f"{where}: 'captions' must be a list of texts")
        elif not (kept := with_words(captions, where, findings)):
            findings.problem(f"{where}: {name} has no caption")
        elif not (folder / name).is_file():
            findings.problem(f"{where}: {folder / name}: no such file")
        elif name in examples:  # one copy could be trained on and the other held out
            findings.problem(
                f"{where}: {name} is listed twice; give it one line, with all captions"
            )
        else:
            examples[name] = Example(ImageFile(folder / name, name), kept)
    if not examples:
        raise DataError(f"{metadata}: no images")
    return list(examples.values())
