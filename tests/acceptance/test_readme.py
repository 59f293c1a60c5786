"""The README does not lie: its commands are run as they stand there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.service import Service
from tests.tiny_bundle import build_colour_data

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


SHELL_LINES = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def lines_with(words: str) -> list[str]:
    found = [line for line in SHELL_LINES if words in line]
    assert found, f"the README no longer shows {words!r}"
    return found


def run(command: str, *, cwd: Path = ROOT, **environment: str) -> str:
    """In a shell, with this environment's programs where the README has .venv/bin."""
    here = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace(".venv/bin", str(here))],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_make_target_exists() -> None:
    for line in SHELL_LINES:
        if match := re.match(r"(?:\S+=\S+ )*make ([\w-]+)", line):
            run(f"make -n {match[1]} DATA=.")


def test_the_curls_get_a_caption(service: Service) -> None:
    upload, read = (
        line.replace("http://127.0.0.1:8000", service.url) for line in lines_with("curl ")
    )
    job = re.search(r'"id":\s*"(\w+)"', run(upload))
    assert job
    assert '"succeeded"' in run(read, JOB_ID=job[1])


def test_the_shell_commands_work_beside_the_service(service: Service, tmp_path: Path) -> None:
    files, folder = lines_with("captioning submit")
    rows = [line.split("\t") for line in run(files, **service.environment).splitlines()]
    assert [row[0] for row in rows] == ["web/samples/cat.jpg", "web/samples/coffee.jpg"]
    assert all(row[1] for row in rows)
    out = tmp_path / "captions.jsonl"
    run(folder.replace("captions.jsonl", str(out)), **service.environment)
    assert len(out.read_text().splitlines()) == len(list((ROOT / "web/samples").glob("*.jpg")))


def test_the_python_examples_print_captions(service: Service, tmp_path: Path) -> None:
    over_http, inside = blocks("python")
    script = tmp_path / "example.py"
    script.write_text(over_http.replace("http://127.0.0.1:8000", service.url))
    assert run(f".venv/bin/python {script}").strip()
    script.write_text(inside)
    printed = run(f".venv/bin/python {script}", **service.environment)
    assert len(ast.literal_eval(printed)) == 3


def test_the_caption_command_needs_no_service() -> None:
    (command,) = re.findall(r"`(\.venv/bin/clipcap caption [^`]+)`", README)
    photo, caption = run(command).strip().split("\t")
    assert photo.endswith("cat.jpg")
    assert caption


def test_a_folder_is_captioned(tmp_path: Path) -> None:
    (command,) = lines_with("clipcap caption")
    run(command.replace("captions.csv", str(tmp_path / "captions.csv")))
    header, *rows = (tmp_path / "captions.csv").read_text().splitlines()
    assert header == "photo,caption"
    assert len(rows) == len(list((ROOT / "web" / "samples").glob("*.jpg")))


def test_a_stranger_trains_and_evaluates(tmp_path: Path) -> None:
    build_colour_data(tmp_path / "my-photos")
    (train,), (evaluate,) = lines_with("clipcap train"), lines_with("clipcap evaluate")
    run(train, cwd=tmp_path)
    assert "CIDEr-D" in run(evaluate, cwd=tmp_path)
