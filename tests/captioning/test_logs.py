"""Log lines for collectors: one JSON object each, whatever is logged."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from captioning.errors import DatabaseUnavailable, StorageUnavailable
from captioning.logs import JsonFormatter, request_id
from captioning.queue import Queue
from captioning.settings import Settings


def line(message: str, *arguments: Any, **more: Any) -> dict[str, Any]:
    record = logging.getLogger("test").makeRecord(
        "test", logging.WARNING, "file", 1, message, arguments, more.pop("exc_info", None), **more
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_is_an_object() -> None:
    said = line("job %s\nfailed", "ü", extra={"job_id": "abc"})
    assert said["message"] == "job ü\nfailed"
    assert (said["level"], said["logger"], said["job_id"]) == ("warning", "test", "abc")
    assert said["time"].endswith("+00:00")
    assert "request_id" not in said


def test_a_line_about_several_jobs_names_them_all() -> None:
    said = line("captioned", extra={"job_ids": ["a", "b"], "request_ids": ["r1"]})
    assert (said["job_ids"], said["request_ids"]) == (["a", "b"], ["r1"])
    assert "job_id" not in said


def test_a_traceback_stays_within_its_line() -> None:
    try:
        raise ValueError("odd\nshape")
    except ValueError:
        said = line("failed", exc_info=sys.exc_info())
    assert "ValueError: odd\nshape" in said["exception"]


def test_the_request_in_hand_is_named() -> None:
    token = request_id.set("r1")
    try:
        assert line("hello")["request_id"] == "r1"
    finally:
        request_id.reset(token)


DIE = """
import threading, warnings
from captioning import logs
logs.configure("json")
warnings.warn("odd")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("the end")
"""


@pytest.mark.slow
def test_what_python_would_print_is_logged_in_the_same_form() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIE], capture_output=True, text=True, timeout=60, check=False
    )
    warned, thread, end = (json.loads(line) for line in done.stderr.splitlines())
    assert "odd" in warned["message"]
    assert "ZeroDivisionError" in thread["exception"]
    assert end["exception"].endswith("ValueError: the end")
    assert (done.returncode, end["level"]) == (1, "critical")


def test_what_cannot_be_reached_is_told_without_its_password(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    queue = Queue(
        Settings(
            data_dir=tmp_path,
            broker_url="redis://me:hunter2@127.0.0.1:1/0",
            database_url="postgresql+psycopg://me:hunter2@127.0.0.1:1/captioning",
            storage_url="s3://photographs",
        )
    )
    assert not queue.doorbell.ring("bundled")
    with pytest.raises(DatabaseUnavailable) as database, queue.database.read() as session:
        session.execute(text("SELECT 1"))
    with pytest.raises(StorageUnavailable) as storage:
        queue.storage.put("images/a.jpg", b"x")
    said = [caplog.text, str(database.value), str(storage.value)]
    assert all(said)
    assert "hunter2" not in "".join(said)
    queue.close()
