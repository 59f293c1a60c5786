"""From the name of a captioner to the folder of its bundle, made or fetched where it must be.

    bundled               the one in this package
    coco, conceptual      the authors' own, from the hub
    FOLDER                a bundle
    FILE                  a checkpoint of the authors' layout
    owner/name            a bundle on the hub

What is converted is kept below the user's cache folder, under a hash of what it was made from.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from clipcap import hub
from clipcap.bundle import CONFIG_FILE
from clipcap.errors import BundleError

BUNDLED = Path(__file__).parent / "bundled"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
CONVERSION = 1  # raise it when the same checkpoint comes to give another bundle


@dataclass(frozen=True)
class Published:
    """A checkpoint on the hub."""

    repository: str
    file: str


PUBLISHED = {
    "coco": Published("akhaliq/CLIP-prefix-captioning-COCO-weights", "coco_weights.pt"),
    "conceptual": Published(
        "akhaliq/CLIP-prefix-captioning-conceptual-weights", "conceptual_weights.pt"
    ),
}
LICENCE = "The authors' code is MIT; the terms of the data they trained on hold for the weights."


def locate(name_or_path: str | Path) -> Path:
    """The folder of a bundle. A path is never looked up on the hub.

    Raises: BundleError.
    """
    path = Path(name_or_path)
    if name_or_path == "bundled":
        return BUNDLED
    if isinstance(name_or_path, str) and name_or_path in PUBLISHED:
        return _published(name_or_path)
    if path.is_dir():
        return path
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return _converted(path, path.stem, digest)
    if isinstance(name_or_path, str) and HUB_ID.fullmatch(name_or_path):
        return hub.fetch_bundle(name_or_path)
    raise BundleError(f"{path}: no such bundle folder")


def _published(name: str) -> Path:
    published = PUBLISHED[name]
    path = hub.fetch(published.repository, published.file)
    digest = hub.stated_digest(path)
    if not (folder := _cache_folder(name, digest) / CONFIG_FILE).is_file():
        hub.verify(path)
        return _converted(path, name, digest, licence=LICENCE)
    return folder.parent


def _converted(path: Path, name: str, digest: str, licence: str = "") -> Path:
    """Convert, unless that was done before; somebody else may be doing it at the same time."""
    target = _cache_folder(name, digest)
    if (target / CONFIG_FILE).is_file():
        return target
    from clipcap.convert import convert

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as unfinished:
        convert(path, Path(unfinished) / name, name=name, licence=licence)
        try:
            os.rename(Path(unfinished) / name, target)
        except OSError as error:
            if not (target / CONFIG_FILE).is_file():
                raise BundleError(f"{target}: {error.strerror}") from error
    return target


def _cache_folder(name: str, digest: str) -> Path:
    return user_cache_path("clipcap") / "converted" / f"{name}-{digest[:16]}-{CONVERSION}"
