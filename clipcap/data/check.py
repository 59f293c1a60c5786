"""Reads a whole data set, images included, and says what would stop or spoil training."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from clipcap.data.example import Example, Findings
from clipcap.data.formats import WHOLE, recognise
from clipcap.data.pictures import Picture, StoredEmbedding
from clipcap.errors import DataError

READ_AT_ONCE = 64
READING_THREADS = 2


@dataclass
class DataCheck(Findings):
    """What was found. Problems stop or spoil training, notes do not."""

    format: str
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Images and captions of each split."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, message: str) -> None:
        self.problems.append(message)

    def left_out(self, message: str) -> None:
        self.notes.append(f"{message}: left out")


def check(data: Path, too_long: Callable[[str], bool]) -> DataCheck:
    """Read every image and caption. `too_long` says of a caption whether it would be cut.

    Raises: DataError where there is no data set.
    """
    dataset = recognise(data)
    found = DataCheck(dataset.format)
    splits: dict[str, list[Example]] = {}
    for name, read in dataset.splits.items():
        try:
            splits[name] = read(found)
        except DataError as error:  # the split cannot be read at all
            found.problem(str(error))
    for name, examples in splits.items():
        captions = [caption for example in examples for caption in example.captions]
        found.counts[name] = (len(examples), len(captions))
        cut = sum(map(too_long, captions))
        if cut:
            found.notes.append(f"{name}: {cut} captions too long for the decoder: cut")
    _check_images(splits, found)
    return found


def _check_images(splits: dict[str, list[Example]], found: DataCheck) -> None:
    """Unreadable ones; and those that are in two splits, or twice in a set that is yet to be
    split."""
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, examples in splits.items():
        pictures = [e.image for e in examples if not isinstance(e.image, StoredEmbedding)]
        for picture, digest in _digests(pictures, split, found):
            seen[digest].append((split, picture.name))
    for copies in seen.values():
        if len(copies) == 1:
            continue
        words = ", ".join(f"{split} {name}" if split != WHOLE else name for split, name in copies)
        if len({split for split, _ in copies}) > 1:
            found.problem(f"the same picture in two splits: {words}")
        elif "dev" not in splits and copies[0][0] in {WHOLE, "train"}:
            found.problem(f"the same picture twice, so it may be trained on and held out: {words}")
        else:
            found.notes.append(f"the same picture twice: {words}")


def _digests(
    pictures: Sequence[Picture], label: str, found: DataCheck
) -> Iterator[tuple[Picture, str]]:
    """Each picture that can be read, with a digest of what it shows."""
    with (
        tqdm(total=len(pictures), desc=f"reading {label}", unit="image") as bar,
        ThreadPoolExecutor(READING_THREADS) as pool,
    ):
        for start in range(0, len(pictures), READ_AT_ONCE):
            batch = pictures[start : start + READ_AT_ONCE]
            for picture, digest in zip(batch, pool.map(_digest, batch), strict=True):
                bar.update()
                if isinstance(digest, DataError):
                    found.problem(str(digest))
                else:
                    yield picture, digest


def _digest(picture: Picture) -> str | DataError:
    """Of the pixels, not the bytes: a copy in another format, or with other metadata, is a copy."""
    try:
        image = picture.open()
    except DataError as error:
        return error
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
