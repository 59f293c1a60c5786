"""What `clipcap caption` writes, and goes on from."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from clipcap import Caption, DataError
from clipcap.commands.outputs import Csv, Format, Jsonl, Lines, Sidecars, Text

CAPTIONS = [Caption("A dog, “running”.", -0.5), Caption("A dog.", -0.75)]
ODD_NAMES = [
    "plain.jpg",
    'käse, "1".jpg',
    "tab\there.jpg",
    "line\nend\r.jpg",
    "back\\slash.jpg",
    "=1+1.jpg",
    " space .jpg",
    os.fsdecode(b"latin-\xe9.jpg"),
    "\x1b[31mred.jpg",
]
FORMATS: list[Callable[[], Format]] = [Text, lambda: Csv(2), lambda: Jsonl("1234")]
each_format = pytest.mark.parametrize("format", FORMATS, ids=["text", "csv", "jsonl"])


def write_all(format: Format, out: Path) -> int:
    """As a run does. Returns how many were not done before."""
    with closing(Lines(format, out)) as lines:
        todo = [Path(name) for name in ODD_NAMES if not lines.has(Path(name))]
        for photo in todo:
            lines.write(photo, CAPTIONS)
    return len(todo)


@each_format
def test_wherever_it_was_cut_off_it_ends_the_same(
    tmp_path: Path, format: Callable[[], Format]
) -> None:
    assert write_all(format(), tmp_path / "whole") == len(ODD_NAMES)
    whole = (tmp_path / "whole").read_bytes()
    out = tmp_path / "cut"
    for end in [0, *range(whole.index(b"\n") + 1, len(whole))]:
        out.write_bytes(whole[:end])
        write_all(format(), out)
        assert out.read_bytes() == whole, f"cut off at byte {end}"
    assert write_all(format(), out) == 0


def test_a_line_of_text_is_a_photo_and_its_captions(tmp_path: Path) -> None:
    write_all(Text(), tmp_path / "out")
    lines = (tmp_path / "out").read_text().splitlines()
    assert len(lines) == len(ODD_NAMES)
    assert all(line.split("\t")[1:] == ["A dog, “running”.", "A dog."] for line in lines)
    assert [line.split("\t")[0] for line in lines[2:5]] == [
        r"tab\there.jpg",
        r"line\nend\r.jpg",
        r"back\slash.jpg",
    ]
    assert lines[7].startswith(r"latin-\xe9.jpg")
    assert lines[8].startswith(r"\x1b[31mred.jpg")


def test_a_row_of_csv_is_a_photo_and_its_captions(tmp_path: Path) -> None:
    write_all(Csv(2), tmp_path / "out")
    with (tmp_path / "out").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["photo", "caption", "caption_2"]
    assert rows[0] == ["plain.jpg", "A dog, “running”.", "A dog."]
    assert rows[1][0] == 'käse, "1".jpg'
    assert len(rows) == len(ODD_NAMES)


def test_a_row_of_csv_has_a_column_for_each_candidate_there_could_be(tmp_path: Path) -> None:
    with closing(Lines(Csv(3), tmp_path / "out")) as lines:
        lines.write(Path("a.jpg"), CAPTIONS)
    assert (tmp_path / "out").read_text().splitlines()[1] == 'a.jpg,"A dog, “running”.",A dog.,'


def test_a_row_of_jsonl_names_the_very_file_and_holds_the_scores(tmp_path: Path) -> None:
    write_all(Jsonl("1234"), tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [row["photo"] for row in rows] == ODD_NAMES
    assert rows[0] == {
        "photo": "plain.jpg",
        "caption": "A dog, “running”.",
        "captions": [
            {"text": "A dog, “running”.", "mean_log_probability": -0.5, "clip_score": None},
            {"text": "A dog.", "mean_log_probability": -0.75, "clip_score": None},
        ],
        "model_revision": "1234",
    }


@each_format
@pytest.mark.parametrize(
    "content",
    [
        b"notes",
        b"my notes\n",
        b"photo,caption\nx.jpg,x\n",
        b'{"a": 1}\n',
        b"[]\n",
        b"\xff\xd8\xff\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_file_of_somebody_else_is_left_alone(
    tmp_path: Path, format: Callable[[], Format], content: bytes
) -> None:
    out = tmp_path / "out"
    out.write_bytes(content)
    with pytest.raises(DataError, match="line 1"):
        Lines(format(), out)
    assert out.read_bytes() == content


@pytest.mark.parametrize("row", [b'"a ""dog\n', b'"a"b,c\n', b'x.jpg,"A dog\nruns."\n'])
def test_a_table_that_was_edited_is_left_alone(tmp_path: Path, row: bytes) -> None:
    """As by somebody who typed a line break into a cell."""
    out = tmp_path / "out"
    out.write_bytes(b"photo,caption\n" + row)
    with pytest.raises(DataError, match="line 2 is not from this command"):
        Lines(Csv(1), out)
    assert out.read_bytes() == b"photo,caption\n" + row


def test_a_file_made_with_other_options_is_left_alone(tmp_path: Path) -> None:
    write_all(Csv(2), tmp_path / "out")
    before = (tmp_path / "out").read_bytes()
    with pytest.raises(DataError, match="options"):
        Lines(Csv(1), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == before


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a file"):
        Lines(Text(), tmp_path / "pipe")


def test_sidecars_lie_beside_their_photos_and_are_apart(tmp_path: Path) -> None:
    names = ["one.jpg", "two.jpg", "two.png", "three.v2.jpg", "four.jpg", "one.tga"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "four.txt").write_text("my own words")
    sidecars = Sidecars()
    new = [name for name in names if not sidecars.has(tmp_path / name)]
    assert new == [name for name in names if name != "four.jpg"]
    for name in new:
        sidecars.write(tmp_path / name, CAPTIONS)
        assert sidecars.has(tmp_path / name)

    written = {path.name for path in tmp_path.iterdir()} - set(names)
    assert written == {
        "one.txt", "two.jpg.txt", "two.png.txt", "three.v2.txt", "four.txt", "one.tga.txt",
    }  # fmt: skip
    assert (tmp_path / "one.txt").read_text() == "A dog, “running”.\nA dog.\n"
    assert (tmp_path / "four.txt").read_text() == "my own words"


def test_a_sidecar_that_cannot_be_written_is_one_photographs_failure(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".jpg", "x" * 251 + ".png"):  # each needs a longer one
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="File name too long"):
        Sidecars().write(tmp_path / name, CAPTIONS)
    assert not Sidecars().has(tmp_path / name)


def test_a_sidecar_may_have_as_long_a_name_as_there_are(tmp_path: Path) -> None:
    name = "x" * 251
    (tmp_path / f"{name}.jpg").touch()
    Sidecars().write(tmp_path / f"{name}.jpg", CAPTIONS)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.jpg", f"{name}.txt"}
