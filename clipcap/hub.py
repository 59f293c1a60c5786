"""The Hugging Face hub: files that come whole or not at all. A download that was cut off goes on
where it stopped; without a network, what was fetched before is found in the hub's own cache.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from clipcap.errors import BundleError

BUNDLE_FILES = [
    "bundle.json",
    "mapper.safetensors",
    "expected_cider.safetensors",
    "ngrams.txt",
    "README.md",
    "clip/*",
    "decoder/*",
]


def fetch(repository: str, file: str) -> Path:
    """Download a file unless it is here and the hub's is no newer.

    Raises: BundleError.
    """
    try:
        return Path(hf_hub_download(repository, file))
    except LocalEntryNotFoundError as error:
        raise BundleError(
            f"{file} of {repository} is not here yet and the hub cannot be reached; "
            "with a network, try again"
        ) from error
    except EntryNotFoundError as error:
        raise BundleError(f"{repository} on the hub has no {file}") from error
    except RepositoryNotFoundError as error:
        raise BundleError(f"the hub has no {repository}, or keeps it private") from error
    except Exception as error:  # huggingface_hub lets those of its HTTP client through
        raise BundleError(_broken_off(f"{file} of {repository}", error)) from error


def fetch_bundle(repository: str) -> Path:
    """Download a bundle repository, its bundle.json first, and verify every file.

    Raises: BundleError.
    """
    try:
        fetch(repository, "bundle.json")
    except BundleError as error:
        raise BundleError(f"{repository}: no such bundle folder here, and {error}") from error
    try:
        folder = Path(snapshot_download(repository, allow_patterns=BUNDLE_FILES))
    except Exception as error:  # as above
        raise BundleError(_broken_off(repository, error)) from error
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            verify(path)
    return folder


def stated_digest(path: Path) -> str:
    """What the hub said a fetched file's contents hash to: its cache names the file so.

    Where a cache can hold no links, nothing is stated, and the contents are hashed.
    """
    name = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
        return name
    return _digest(path, "sha256")


def verify(path: Path) -> None:
    """Refuse a fetched file that is not what the hub said, and forget it.

    Raises: BundleError.
    """
    stated = stated_digest(path)
    # Large files are named by their SHA-256, small ones by their git object.
    if _digest(path, "sha256" if len(stated) == 64 else "git") != stated:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise BundleError(f"{path.name}: damaged on its way from the hub, now removed; try again")


def _digest(path: Path, kind: str) -> str:
    git = kind == "git"
    digest = hashlib.sha1(usedforsecurity=False) if git else hashlib.sha256()
    if git:
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _broken_off(what: str, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return f"{what}: the download failed ({reason}); try again, it goes on where it stopped"
