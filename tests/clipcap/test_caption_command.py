"""`clipcap caption`, as somebody uses it: over folders, stopped and started again."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from clipcap.cli import main

MANY = 200


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs, one in a folder of its own, and one that cannot be read."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (20, 20), "red").save(folder / "1.png")
    Image.new("RGB", (400, 300), "blue").save(folder / "deep" / "2.jpg")
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    Image.new("RGB", (20, 20), "red").save(folder / "000.png")
    for number in range(1, MANY):
        os.link(folder / "000.png", folder / f"{number:03}.png")
    return folder


def caption(bundle: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["caption", "--model", str(bundle), *map(str, arguments)])


def start(bundle: Path, *arguments: object, **streams: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "clipcap", "caption", "--model", bundle, *arguments]
    return subprocess.Popen(list(map(str, command)), preexec_fn=_hear_ctrl_c, **streams)


def _hear_ctrl_c() -> None:
    """Tests that run in the background of a shell ignore SIGINT, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_folder_is_captioned_and_what_cannot_be_read_is_told_at_the_end(
    tiny_bundle: Path, photos: Path
) -> None:
    done = caption(tiny_bundle, photos, photos / "missing.jpg")

    assert done.exit_code == 1
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(photos / "1.png"), str(photos / "deep" / "2.jpg")]
    assert "red" in rows[0][1]
    assert "blue" in rows[1][1]
    assert done.stderr.splitlines() == [
        f"{photos / 'bad.jpg'}: cannot be read as an image",
        f"{photos / 'missing.jpg'}: No such file or directory",
    ]


def test_all_well_and_nothing_is_said(tiny_bundle: Path, photos: Path) -> None:
    done = caption(tiny_bundle, photos / "1.png")
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_photograph_that_is_named_twice_is_captioned_once(
    tiny_bundle: Path, photos: Path
) -> None:
    out = photos / "captions.txt"
    done = caption(tiny_bundle, photos, photos / "1.png", "--out", out)
    assert done.stderr.splitlines()[-1] == "2 captioned, 1 failed"
    assert len(out.read_text().splitlines()) == 2


def test_what_is_in_the_output_is_not_done_again(tiny_bundle: Path, photos: Path) -> None:
    out = photos / "captions.jsonl"  # inside the folder: it is no photograph
    arguments = (photos, "--format", "jsonl", "--out", out)
    done = caption(tiny_bundle, *arguments)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "2 captioned, 1 failed"
    first = out.read_text()

    Image.new("RGB", (20, 20), "green").save(photos / "bad.jpg", "PNG")
    done = caption(tiny_bundle, *arguments)
    assert done.exit_code == 0
    assert done.stderr.splitlines() == ["1 captioned (2 were done before)"]
    assert out.read_text().startswith(first)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(row["photo"]).name for row in rows] == ["1.png", "2.jpg", "bad.jpg"]
    assert "green" in rows[2]["caption"]


def test_candidates_are_columns_of_csv(tiny_bundle: Path, photos: Path) -> None:
    out = photos / "captions.csv"
    caption(tiny_bundle, photos, "--format", "csv", "--num-captions", 3, "--out", out)
    with out.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["photo", "caption", "caption_2", "caption_3"]
    assert [len(set(row)) for row in rows] == [4, 4]


def test_sidecars_are_written_once(tiny_bundle: Path, photos: Path) -> None:
    (photos / "bad.jpg").unlink()
    done = caption(tiny_bundle, photos, "--format", "sidecar")
    assert done.exit_code == 0
    assert "red" in (photos / "1.txt").read_text()
    assert "blue" in (photos / "deep" / "2.txt").read_text()
    done = caption(tiny_bundle, photos, "--format", "sidecar")
    assert done.stderr == "0 captioned (2 were done before)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "Error: no photographs in empty"),
        (
            ["empty", "--out", "nowhere/out.txt"],
            "Error: nowhere/out.txt: No such file",
        ),
        (["empty", "--out", "empty"], "Error: empty: not a file to write captions to"),
        (["empty", "--out", "/dev/full", "--format", "csv"], "Error: /dev/full: not a file"),
        (["empty", "--out", "x", "--format", "sidecar"], "Error: --out does not go with sidecar"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    done = caption(tiny_bundle, *arguments)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(message)


@pytest.mark.slow
def test_a_disk_that_is_full_is_told_in_a_line(tiny_bundle: Path, photos: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = start(tiny_bundle, photos, stdout=full.fileno(), stderr=subprocess.PIPE)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stderr == b"Error: No space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGINT])
def test_after_a_stop_the_same_command_goes_on(
    tiny_bundle: Path, many: Path, tmp_path: Path, with_signal: signal.Signals
) -> None:
    out = tmp_path / "captions.txt"
    arguments = (many, "--out", out, "--batch-size", 2)
    process = start(tiny_bundle, *arguments, stderr=subprocess.PIPE)
    while not (out.exists() and out.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(with_signal)
    _, stderr = process.communicate(timeout=60)
    lines = out.read_text().splitlines()
    assert 0 < len(lines) < MANY
    if with_signal == signal.SIGINT:
        assert process.returncode == 130
        counted, stopped = stderr.decode().splitlines()
        assert counted.endswith(" captioned")
        assert stopped == "Stopped. The same command goes on."

    done = caption(tiny_bundle, *arguments)
    assert done.exit_code == 0
    assert done.stderr.startswith(f"{MANY - len(lines)} captioned")
    names = [Path(line.split("\t")[0]).name for line in out.read_text().splitlines()]
    assert names == [f"{number:03}.png" for number in range(MANY)]


@pytest.mark.slow
def test_nobody_reading_on_is_no_mistake(tiny_bundle: Path, many: Path) -> None:
    process = start(tiny_bundle, many, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stderr == b""


@pytest.mark.slow
def test_a_terminal_sees_how_far_it_is(tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    process = start(tiny_bundle, photos, "--out", tmp_path / "out", stderr=its_end)
    os.close(its_end)
    seen = b""
    try:
        while part := os.read(terminal, 4096):
            seen += part
    except OSError:  # how a terminal says that nobody writes any more
        pass
    os.close(terminal)
    assert process.wait(timeout=60) == 1
    assert b"| 3/3 [" in seen
    assert b"photos/s]" in seen
    assert b"2 captioned, 1 failed" in seen
