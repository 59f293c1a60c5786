"""COCO captions, as COCO itself publishes them (`captions_train2014.json`) and as Karpathy split
them for papers (`dataset_coco.json`, `dataset_flickr8k.json`, …)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from clipcap.data.example import Example, Findings, with_words
from clipcap.data.pictures import ImageFile
from clipcap.data.texts import read_json_object
from clipcap.errors import DataError

KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}
"""restval is what COCO's own validation set has left over; every paper trains on it."""


def is_karpathy(data: dict[str, Any]) -> bool:
    images = data.get("images")
    return isinstance(images, list) and bool(images) and _dict(images[0]).keys() >= {"sentences"}


def is_coco(data: dict[str, Any]) -> bool:
    return isinstance(data.get("images"), list) and isinstance(data.get("annotations"), list)


class KarpathyFile:
    """A `dataset_*.json`, parsed once for all its splits."""

    def __init__(self, path: Path, data: dict[str, Any] | None = None) -> None:
        """Raises: DataError."""
        self.path = path
        self._data = read_json_object(path) if data is None else data
        if not is_karpathy(self._data):
            raise DataError(f"{path}: not Karpathy's format: no 'sentences' in 'images'")

    def splits(self) -> list[str]:
        """Those that it has images of."""
        named = {row.get("split", "") for row in map(_dict, self._data["images"])}
        there = {KARPATHY_SPLITS[name] for name in named if name in KARPATHY_SPLITS}
        return [split for split in dict.fromkeys(KARPATHY_SPLITS.values()) if split in there]

    def read(self, split: str, findings: Findings) -> list[Example]:
        """Raises: DataError, naming the image."""
        finder = ImageFinder(self.path)
        examples = []
        for number, row in enumerate(map(_dict, self._data["images"])):
            if KARPATHY_SPLITS.get(row.get("split", "")) != split:
                continue
            where = f"{self.path}, images[{number}]"
            name = "/".join(filter(None, [row.get("filepath"), row.get("filename")]))
            captions = [_dict(sentence).get("raw") for sentence in row.get("sentences") or []]
            example = _example(where, name, captions, row.get("cocoid"), finder, findings)
            examples += [example] if example else []
        if not examples:
            raise DataError(f"{self.path}: no images of the {split} split")
        return examples


def read_coco(path: Path, findings: Findings) -> list[Example]:
    """Raises: DataError, naming the image."""
    data = read_json_object(path)
    if not is_coco(data):
        raise DataError(f"{path}: not COCO captions: 'images' and 'annotations' must be lists")
    captions: dict[Any, list[Any]] = defaultdict(list)
    for annotation in map(_dict, data["annotations"]):
        captions[annotation.get("image_id")].append(annotation.get("caption"))
    finder = ImageFinder(path)
    examples = []
    for number, row in enumerate(map(_dict, data["images"])):
        where, key = f"{path}, images[{number}]", row.get("id")
        found = captions.get(key, [])
        example = _example(where, row.get("file_name"), found, key, finder, findings)
        examples += [example] if example else []
    if not examples:
        raise DataError(f"{path}: no images")
    return examples


class ImageFinder:
    """Finds images where people keep them: beside the JSON or beside its `annotations` folder,
    there or in `images`, and in there perhaps in a folder named after the split."""

    def __init__(self, path: Path) -> None:
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        self._places = [root, root / "images"]
        split = path.stem.rpartition("_")[2]  # captions_train2014 -> train2014
        self._places += [place / split for place in self._places if (place / split).is_dir()]

    def find(self, name: str) -> Path:
        """Raises: DataError, naming the places."""
        for place in self._places:
            if (place / name).is_file():
                return place / name
        places = ", ".join(map(str, self._places))
        raise DataError(f"{name}: no such file in any of {places}")


def _example(
    where: str,
    name: object,
    captions: list[Any],
    image_id: object,
    finder: ImageFinder,
    findings: Findings,
) -> Example | None:
    if not isinstance(name, str) or not name:
        findings.problem(f"{where}: the image's file name is missing")
        return None
    if not all(isinstance(caption, str) for caption in captions):
        findings.problem(f"{where}: {name}: a caption is no text")
        return None
    kept = with_words(captions, where, findings)
    if not kept:
        findings.problem(f"{where}: {name} has no caption")
        return None
    try:
        path = finder.find(name)
    except DataError as error:
        findings.problem(f"{where}: {error}")
        return None
    return Example(ImageFile(path, name), kept, image_id if isinstance(image_id, int) else None)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
