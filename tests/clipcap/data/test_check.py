"""`clipcap data check` says what would stop or spoil training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from clipcap.cli import main
from tests.clipcap.data.sets import picture, write_folder, write_shard

Check = Callable[..., str]


@pytest.fixture
def check(tiny_bundle: Path) -> Check:
    """Runs the command, expects its status, and returns what it said."""

    def run(data: Path, *, status: int) -> str:
        arguments = ["data", "check", str(data), "--model", str(tiny_bundle)]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == status, done.output
        return done.stdout

    return run


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_folder(tmp_path / "set" / "train", {"1.png": ["a cat", "a pet"], "2.png": ["a dog"]})
    write_folder(tmp_path / "set" / "dev", {"1.png": ["a bird"]}, shade=200)
    return tmp_path / "set"


def test_a_good_set_is_counted(good: Path, check: Check) -> None:
    lines = check(good, status=0).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["train", "2", "images", "3", "captions"],
        ["dev", "1", "images", "1", "captions"],
        ["no", "problems"],
    ]


def test_an_image_that_cannot_be_read_is_a_problem(good: Path, check: Check) -> None:
    (good / "train" / "2.png").write_bytes(picture()[:40])
    assert f"problem: {good / 'train' / '2.png'}: cannot be read" in check(good, status=1)


def test_a_copy_in_another_split_is_a_problem(good: Path, check: Check) -> None:
    (good / "dev" / "1.png").write_bytes((good / "train" / "2.png").read_bytes())
    said = check(good, status=1)
    assert "problem: the same picture in two splits: train 2.png, dev 1.png" in said


def test_a_copy_in_another_format_is_a_copy(good: Path, check: Check) -> None:
    with Image.open(good / "train" / "2.png") as image:
        image.save(good / "dev" / "1.png", "WEBP", lossless=True)
    assert "the same picture in two splits" in check(good, status=1)


def test_a_copy_in_the_same_split_is_a_problem_only_while_dev_is_yet_to_be_held_out(
    good: Path, check: Check
) -> None:
    (good / "train" / "1.png").write_bytes((good / "train" / "2.png").read_bytes())
    assert "note: the same picture twice: train 1.png, train 2.png" in check(good, status=0)
    assert "problem: the same picture twice, so" in check(good / "train", status=1)


def test_every_bad_line_is_told_not_only_the_first(good: Path, check: Check) -> None:
    rows = ["{}", '{"file_name": "3.png", "captions": ["x"]}', '{"file_name": "2.png"}']
    (good / "train" / "metadata.jsonl").write_text(
        '{"file_name": "1.png", "captions": ["a cat", "."]}\n' + "\n".join(rows)
    )
    said = check(good, status=1)
    assert said.count("problem: ") == 3
    assert "line 1: 1 captions without a word: left out" in said
    assert ["train", "1", "images", "1", "captions"] in [row.split() for row in said.splitlines()]


def test_a_split_that_cannot_be_read_does_not_hide_the_other(good: Path, check: Check) -> None:
    (good / "train" / "metadata.jsonl").write_text("{")
    said = check(good, status=1)
    assert "metadata.jsonl, line 1: not JSON" in said
    assert "dev" in said


def test_captions_that_would_be_cut_are_counted(good: Path, check: Check) -> None:
    write_folder(good / "dev", {"1.png": ["one two three four " * 40, "a bird"]}, shade=200)
    assert "note: dev: 1 captions too long for the decoder: cut" in check(good, status=0)


def test_samples_of_a_shard_without_caption_are_counted(tmp_path: Path, check: Check) -> None:
    files = {"1.png": picture("red"), "1.txt": b"red", "2.png": picture("blue")}
    write_shard(tmp_path / "0.tar", files)
    said = check(tmp_path, status=0)
    assert f"note: {tmp_path / '0.tar'}, 2: no caption: left out" in said


def test_only_so_much_is_printed(tmp_path: Path, check: Check) -> None:
    names = [f"{i}.png" for i in range(25)]
    write_folder(tmp_path, {name: ["x"] for name in ["good.png", *names]})
    for name in names:
        (tmp_path / name).unlink()
    said = check(tmp_path, status=1)
    assert said.count("no such file") == 20
    assert "problem: and 5 more" in said
