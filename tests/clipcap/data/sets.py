"""Small data sets in each format, of plain pictures."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image


def picture(colour: object = "red", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")  # type: ignore[arg-type]
    return buffer.getvalue()


def write_image(path: Path, colour: object = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(colour))
    return path


def write_json(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def write_folder(folder: Path, captions: Mapping[str, list[str]], *, shade: int = 0) -> Path:
    """An image folder; each image has a colour of its own."""
    rows = []
    for number, (name, texts) in enumerate(captions.items()):
        write_image(folder / name, (shade, number * 20, 99))
        rows.append(json.dumps({"file_name": name, "captions": texts}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows))
    return folder


def write_shard(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def karpathy(images: list[dict[str, Any]]) -> dict[str, Any]:
    return {"dataset": "coco", "images": images}


def karpathy_image(name: str, split: str, number: int, *captions: str) -> dict[str, Any]:
    return {
        "filepath": "val2014",
        "filename": name,
        "split": split,
        "cocoid": number,
        "sentences": [{"raw": caption, "tokens": caption.split()} for caption in captions],
    }


def coco(images: Mapping[str, list[str]], first_id: int = 100) -> dict[str, Any]:
    rows = list(enumerate(images.items(), start=first_id))
    return {
        "images": [{"id": number, "file_name": name} for number, (name, _) in rows],
        "annotations": [
            {"id": 1000 * number + i, "image_id": number, "caption": caption}
            for number, (_, captions) in rows
            for i, caption in enumerate(captions)
        ],
    }
