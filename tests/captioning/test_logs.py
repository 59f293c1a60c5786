"""Log lines for collectors: one JSON object each, whatever is logged."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from captioning.logs import JsonFormatter, request_id


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
