"""Which format a data set is in, told from what is there, and its splits.

| there is | it is |
|---|---|
| folders `train` and `dev` (or `test`) | a set in each, of any format below that has no splits |
| `metadata.jsonl` | a folder of images |
| `metadata.jsonl` and `embeddings.safetensors` | stored embeddings |
| `dataset*.json` | Karpathy's splits |
| `captions_*.json`, there or in `annotations` | COCO captions: train, and val as dev |
| `*.tar` | webdataset shards |
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clipcap.data.coco import KarpathyFile, is_coco, is_karpathy, read_coco
from clipcap.data.example import REFUSE, Example, Findings, Splits
from clipcap.data.folder import METADATA, read_folder
from clipcap.data.shards import read_shards
from clipcap.data.stored import EMBEDDINGS, read_stored
from clipcap.data.texts import read_json_object
from clipcap.errors import DataError

SPLITS = ("train", "dev", "test")
WHOLE = "whole"
"""The one split of a set that has none."""
LOOKED_FOR = (
    "metadata.jsonl, dataset*.json, captions_*.json (there or in annotations/), *.tar, "
    "or folders train and dev that hold one of these"
)

Reader = Callable[[Findings], list[Example]]


@dataclass(frozen=True)
class DataSet:
    """A set whose format is known and which is not read yet."""

    path: Path
    format: str
    splits: dict[str, Reader]


def read_splits(data: Path, *, held_out: float, seed: int) -> Splits:
    """The set's own train and dev; where there is no dev, a share of the images, the same for
    the same seed, is held out.

    Raises: DataError.
    """
    found = recognise(data)
    train = found.splits.get("train") or found.splits.get(WHOLE)
    if train is None:
        raise DataError(f"{data}: {found.format} with {', '.join(found.splits)}, but no train")
    examples = train(REFUSE)
    if "dev" in found.splits:
        return Splits(examples, found.splits["dev"](REFUSE))
    count = max(1, round(len(examples) * held_out))
    if count >= len(examples):
        raise DataError(f"{data}: {len(examples)} images are too few to hold any out")
    shuffled = random.Random(seed).sample(examples, len(examples))  # noqa: S311 (no secret)
    return Splits(shuffled[count:], shuffled[:count])


def read_evaluation_set(data: Path, split: str | None = None) -> list[Example]:
    """The images of a split, by default of dev, or of all of a set that has no splits.

    Raises: DataError.
    """
    found = recognise(data)
    chosen = split or (WHOLE if WHOLE in found.splits else "dev")
    if chosen not in found.splits:
        there = "no splits" if WHOLE in found.splits else ", ".join(found.splits)
        raise DataError(f"{data}: no {chosen} split; {found.format} with {there}")
    return found.splits[chosen](REFUSE)


def recognise(data: Path) -> DataSet:
    """Raises: DataError, naming what was looked for."""
    if not data.exists():
        raise DataError(f"{data}: no such file or folder")
    if data.is_file():
        return _one_file(data)
    parts = {name: _single(data / name) for name in SPLITS if (data / name).is_dir()}
    splits = {name: part.splits[WHOLE] for name, part in parts.items() if part}
    if splits.keys() >= {"train", "dev"}:
        return DataSet(data, "folders", splits)
    found = _listed(data) or _karpathy(data) or _coco(data) or _shards(data)
    if found:
        return found
    if splits:
        return DataSet(data, "folders", splits)
    for named in sorted(data.glob("dataset*.json")):
        KarpathyFile(named)  # it was meant, and says what is wrong with it
    raise DataError(f"{data}: no data set that is known here; looked for {LOOKED_FOR}")


def _one_file(path: Path) -> DataSet:
    if path.suffix == ".tar":
        return DataSet(path, "webdataset shard", {WHOLE: partial(read_shards, [path])})
    if path.suffix == ".json":
        data = read_json_object(path)
        if is_karpathy(data):
            return _karpathy_file(KarpathyFile(path, data))
        if is_coco(data):
            return DataSet(path, "COCO captions", {WHOLE: partial(read_coco, path)})
    raise DataError(f"{path}: neither COCO captions nor Karpathy's splits, nor a .tar shard")


def _single(folder: Path) -> DataSet | None:
    """A set without splits."""
    return _listed(folder) or _shards(folder)


def _listed(folder: Path) -> DataSet | None:
    if (folder / EMBEDDINGS).is_file():
        return DataSet(folder, "stored embeddings", {WHOLE: partial(read_stored, folder)})
    if (folder / METADATA).is_file():
        return DataSet(folder, "image folder", {WHOLE: partial(read_folder, folder)})
    return None


def _shards(folder: Path) -> DataSet | None:
    shards = sorted(folder.glob("*.tar"))
    if shards:
        return DataSet(folder, "webdataset shards", {WHOLE: partial(read_shards, shards)})
    return None


def _karpathy(folder: Path) -> DataSet | None:
    found = []
    for path in sorted(folder.glob("dataset*.json")):
        with suppress(DataError):  # other data sets have a file of that name, too
            found.append(KarpathyFile(path))
    if len(found) > 1:
        names = ", ".join(file.path.name for file in found)
        raise DataError(f"{folder}: {names}: name the one that is meant")
    return _karpathy_file(found[0]) if found else None


def _karpathy_file(file: KarpathyFile) -> DataSet:
    splits: dict[str, Reader] = {name: partial(file.read, name) for name in file.splits()}
    return DataSet(file.path, "Karpathy's splits", splits)


def _coco(folder: Path) -> DataSet | None:
    splits: dict[str, Reader] = {}
    for name, stem in zip(SPLITS, ("train", "val", "test"), strict=True):
        pattern = f"captions_{stem}*.json"
        found = sorted([*folder.glob(pattern), *(folder / "annotations").glob(pattern)])
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{folder}: {names}: name the one that is meant")
        if found:
            splits[name] = partial(read_coco, found[0])
    return DataSet(folder, "COCO captions", splits) if splits else None
