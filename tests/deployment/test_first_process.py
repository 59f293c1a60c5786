"""Each command of the images hears SIGTERM from its first moments on, also where it is the first
process of a container, to which the kernel gives no default actions."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from captioning.database import Database
from captioning.models import Worker
from tests.deployment.files import ROOT, outside
from tests.servers import migrated_database

pytestmark = pytest.mark.slow

COMMAND = Path(sys.executable).with_name("captioning")
WAIT_S = 60
AS_THE_FIRST = ["sh", "-c", 'trap "" TERM; exec "$@"', "sh"]
"""A signal that is ignored stays so until the program sets a handler, as for process 1."""
SLOW = "import pathlib, time; pathlib.Path({mark!r}).touch(); time.sleep(600)"


def told_to_stop(
    command: list[str | Path], is_busy: Callable[[], bool], **environment: str | Path
) -> int:
    """Its exit code, where it is told so while it is busy."""
    process = subprocess.Popen(
        [*AS_THE_FIRST, *command], env={**outside(), **environment}, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + WAIT_S
        while not is_busy():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        return process.wait(WAIT_S)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("command", "imported", "code"),
    # A migration that was not made is no success: what waits for it would start.
    [("web", "apiflask", 0), ("worker", "torch", 0), ("migrate", "alembic", 143)],
)
def test_while_it_imports_what_it_needs(
    command: str, imported: str, code: int, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    (tmp_path / f"{imported}.py").write_text(SLOW.format(mark=str(mark)))
    settings = {"PYTHONPATH": tmp_path, "CAPTIONING_DATA_DIR": tmp_path / "data"}
    assert told_to_stop([COMMAND, command], mark.exists, **settings) == code


@pytest.mark.parametrize("command", [[COMMAND, "worker"], [sys.executable, "-P", "-m", "worker"]])
def test_while_a_model_is_loaded(command: list[str | Path], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    os.mkfifo(bundle / "bundle.json")  # who reads it waits for somebody to write
    writers: list[int] = []

    def is_read() -> bool:
        try:
            writers.append(os.open(bundle / "bundle.json", os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:  # nobody reads yet
            if error.errno != errno.ENXIO:
                raise
        return bool(writers)

    with migrated_database("sqlite", tmp_path):
        settings = {
            "PYTHONPATH": ROOT,
            "CAPTIONING_DATA_DIR": tmp_path,
            "CAPTIONING_MODELS": f"slow={bundle}",
        }
        assert told_to_stop(command, is_read, **settings) == 0
    for writer in writers:
        os.close(writer)


def test_a_worker_that_has_registered_signs_off(tiny_bundle: Path, tmp_path: Path) -> None:
    """Told before Celery has its own handlers."""
    mark = tmp_path / "mark"
    code = (
        "import sys, worker.__main__ as program\n"
        f"def run(*_): {SLOW.format(mark=str(mark))}\n"
        "program.run = run\n"
        "sys.exit(program.main())"
    )
    with migrated_database("sqlite", tmp_path) as url:
        settings = {
            "PYTHONPATH": ROOT,
            "CAPTIONING_DATA_DIR": tmp_path,
            "CAPTIONING_MODELS": f"tiny={tiny_bundle}",
        }
        command: list[str | Path] = [sys.executable, "-P", "-c", code]
        assert told_to_stop(command, mark.exists, **settings) == 0
        database = Database(url)
        with database.read() as session:
            assert session.query(Worker).all() == []
        database.close()


@pytest.mark.parametrize("command", ["web", "worker"])
def test_an_exit_code_of_web_and_worker_is_the_commands(command: str) -> None:
    done = subprocess.run(
        [COMMAND, command],
        env={**outside(), "CAPTIONING_PORT": "many"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{command}: CAPTIONING_PORT: ")
