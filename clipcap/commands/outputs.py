"""Where `clipcap caption` writes, and what is there already from a run that was stopped."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from clipcap.errors import DataError
from clipcap.folders import SUFFIXES

if TYPE_CHECKING:
    from clipcap.captioner import Caption

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {
    ord("\t"): r"\t", ord("\n"): r"\n", ord("\r"): r"\r"
}  # fmt: skip


def one_line(text: str) -> str:
    """Names may hold tabs, line ends and bytes that are no UTF-8: these as escapes."""
    valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return valid.translate(_ESCAPES)


class Output(Protocol):
    lasts: bool
    """What was written is still there for the next run, which does not do it again."""

    def has(self, photo: Path) -> bool: ...

    def write(self, photo: Path, captions: list[Caption]) -> None:
        """Raises: DataError, where only this photograph's cannot be written."""

    def close(self) -> None: ...


class Format(Protocol):
    """One line for each photograph, so that a line is either there or not."""

    header: str | None

    def line(self, photo: Path, captions: list[Caption]) -> str: ...

    def key(self, photo: Path) -> str:
        """What the photograph is called in its line."""

    def key_of(self, line: str) -> str:
        """Raises: ValueError, if the line is not of this format."""


class Text:
    """The photograph and its candidates, separated by tabs."""

    header: str | None = None

    def line(self, photo: Path, captions: list[Caption]) -> str:
        return "\t".join([self.key(photo), *(one_line(each.text) for each in captions)])

    def key(self, photo: Path) -> str:
        return one_line(str(photo))

    def key_of(self, line: str) -> str:
        key, tab, _ = line.partition("\t")
        if not tab:
            raise ValueError("no tab")
        return key


class Csv(Text):
    """The columns of `Text`, with a header."""

    def __init__(self, num_captions: int) -> None:
        self._num_captions = num_captions
        more = (f"caption_{rank}" for rank in range(2, num_captions + 1))
        self.header = ",".join(["photo", "caption", *more])

    def line(self, photo: Path, captions: list[Caption]) -> str:
        row = io.StringIO()
        texts = [one_line(each.text) for each in captions]
        texts += [""] * (self._num_captions - len(texts))  # no more may have been found
        csv.writer(row, lineterminator="").writerow([self.key(photo), *texts])
        return row.getvalue()

    def key_of(self, line: str) -> str:
        ((key, _, *_),) = csv.reader([line], strict=True)
        return key


class Jsonl:
    """All that is known of the captions, an object a line."""

    header: str | None = None

    def __init__(self, revision: str) -> None:
        self._revision = revision

    def line(self, photo: Path, captions: list[Caption]) -> str:
        row = {
            "photo": self.key(photo),
            "caption": captions[0].text,
            "captions": [asdict(each) for each in captions],
            "model_revision": self._revision,
        }
        return json.dumps(row, ensure_ascii=False)

    def key(self, photo: Path) -> str:
        return str(photo)

    def key_of(self, line: str) -> str:
        row = json.loads(line)
        if not isinstance(row, dict) or not isinstance(row.get("photo"), str):
            raise ValueError("no photo")
        return str(row["photo"])


class Lines:
    """Lines to the terminal, or appended to a file, whose photographs count as done."""

    def __init__(self, format: Format, out: Path | None) -> None:
        self.lasts = out is not None
        self._format = format
        self._done: set[str] = set() if out is None else self._resume(out)
        self._file: IO[bytes] = sys.stdout.buffer if out is None else out.open("ab", buffering=0)
        if format.header is not None and (out is None or out.stat().st_size == 0):
            self._write(format.header)

    def has(self, photo: Path) -> bool:
        return self._format.key(photo) in self._done

    def write(self, photo: Path, captions: list[Caption]) -> None:
        self._write(self._format.line(photo, captions))

    def close(self) -> None:
        if self.lasts:
            self._file.close()

    def _write(self, line: str) -> None:
        # Only JSON has lone surrogates here, and the replacement is what JSON writes for them.
        left = memoryview(f"{line}\n".encode("utf-8", "backslashreplace"))
        while left:  # a disk that fills up takes only a part, and says so at the next
            left = left[self._file.write(left) :]
        self._file.flush()

    def _resume(self, out: Path) -> set[str]:
        """What a file holds already; its last line is cut off if it was not written whole.

        Raises: DataError, if somebody else wrote it.
        """
        done: set[str] = set()
        if not out.exists():
            return done
        if not out.is_file():
            raise DataError(f"{out}: not a file to write captions to")
        with out.open("r+b") as file:
            end = 0
            for number, line in enumerate(file, start=1):
                whole = line.endswith(b"\n")
                if not whole and end:
                    file.truncate(end)
                    break
                try:
                    text = line.decode().rstrip("\r\n")
                    is_header = number == 1 and self._format.header is not None
                    if not whole or (is_header and text != self._format.header):
                        raise ValueError("not written here")
                    if not is_header:
                        done.add(self._format.key_of(text))
                except (ValueError, csv.Error, RecursionError) as error:
                    raise DataError(
                        f"{out}: line {number} is not from this command with these options; "
                        "name another file"
                    ) from error
                end += len(line)
        return done


class Sidecars:
    """A text file beside each photograph, a line for each candidate: photo.txt for photo.jpg,
    but photo.jpg.txt and photo.png.txt where both are there, and photo.tga.txt where folders are
    not searched for that ending."""

    lasts = True

    def has(self, photo: Path) -> bool:
        return os.path.lexists(self._path(photo))

    def write(self, photo: Path, captions: list[Caption]) -> None:
        path = self._path(photo)
        new = path.with_name(f".{os.getpid()}.new")  # no longer than the name itself may be
        try:
            # Whole or not at all: a file that is there counts as done.
            new.write_text("".join(f"{one_line(each.text)}\n" for each in captions), "utf-8")
            new.replace(path)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error

    def close(self) -> None:
        """Nothing is open between two photographs."""

    def _path(self, photo: Path) -> Path:
        alone = photo.suffix.lower() in SUFFIXES and _stems(photo.parent)[photo.stem] <= 1
        return photo.with_name(f"{photo.stem if alone else photo.name}.txt")


@lru_cache(maxsize=2)  # photographs come folder by folder, and are written a little later
def _stems(folder: Path) -> Counter[str]:
    try:
        names = os.listdir(folder)
    except OSError:  # nothing to tell apart; the photograph itself will say what is wrong
        return Counter()
    parts = map(os.path.splitext, names)
    return Counter(stem for stem, suffix in parts if suffix.lower() in SUFFIXES)
