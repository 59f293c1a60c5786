"""`python -m web` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from captioning.settings import Settings
from tests.acceptance.service import free_port

pytestmark = pytest.mark.slow


def environment(settings: Settings, port: int, metrics_port: int | None = None) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CAPTIONING_")}
    return inherited | {
        "CAPTIONING_WEB_METRICS_PORT": str(metrics_port or ""),
        "CAPTIONING_DATA_DIR": str(settings.data_dir),
        "CAPTIONING_PORT": str(port),
        "CAPTIONING_MAX_UPLOAD_BYTES": "1000000",
        "CAPTIONING_LOG_FORMAT": "json",
    }


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def metrics_port() -> int:
    return free_port()


@pytest.fixture
def server(settings: Settings, port: int, metrics_port: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "web"],
        env=environment(settings, port, metrics_port),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz", process)
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            httpx.get(url).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)


def test_it_serves_until_it_is_told_to_stop(server: subprocess.Popen[str], port: int) -> None:
    photo = Path(__file__).parents[2] / "web" / "samples" / "cat.jpg"
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        answer = client.post("/api/v1/jobs", files={"image": ("cat.jpg", photo.read_bytes())})
        assert answer.status_code == 202
        assert client.get(answer.headers["Location"]).json()["status"] == "queued"
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0


def test_its_log_lines_name_the_request(server: subprocess.Popen[str], port: int) -> None:
    photo = Path(__file__).parents[2] / "web" / "samples" / "cat.jpg"
    answer = httpx.post(
        f"http://127.0.0.1:{port}/api/v1/jobs",
        files={"image": ("cat.jpg", photo.read_bytes())},
        headers={"X-Request-ID": "edge-1"},
        timeout=30,
    )
    assert answer.status_code == 202  # though there is no broker, and that is logged
    server.send_signal(signal.SIGTERM)
    _, logged = server.communicate(timeout=30)
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if "doorbell" in line["message"]]
    assert line["request_id"] == "edge-1"


def test_a_proxy_that_is_not_named_is_not_believed(
    server: subprocess.Popen[str], port: int
) -> None:
    """gunicorn by itself believes what comes from this machine."""
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    answer = httpx.get(f"http://127.0.0.1:{port}/", headers=forwarded)
    assert answer.status_code == 200
    assert "Strict-Transport-Security" not in answer.headers


def test_its_metrics_are_on_a_port_of_their_own(
    server: subprocess.Popen[str], port: int, metrics_port: int
) -> None:
    shown = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    assert 'captioning_http_request_seconds_count{method="GET",route="/healthz"' in shown
    assert "captioning_database_up 1.0" in shown


def test_a_process_that_is_killed_is_replaced_with_its_metrics_and_logged(
    server: subprocess.Popen[str], port: int, metrics_port: int
) -> None:
    (child,) = psutil.Process(server.pid).children()
    child.kill()
    child.wait(30)
    for where in (port, metrics_port):
        wait_for(f"http://127.0.0.1:{where}/healthz", server)
    server.send_signal(signal.SIGTERM)
    _, logged = server.communicate(timeout=30)
    lines = [json.loads(line) for line in logged.splitlines()]
    assert any("SIGKILL" in line["message"] for line in lines)


def test_a_metrics_port_in_use_is_one_clear_line(settings: Settings, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "web"],
            env=environment(settings, port, taken.getsockname()[1]),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Address already in use" in done.stderr


def test_an_upload_that_is_too_large_gets_its_answer(
    server: subprocess.Popen[str], port: int
) -> None:
    answer = httpx.post(
        f"http://127.0.0.1:{port}/api/v1/batches",
        files={"images": ("large.jpg", bytes(2_000_000))},
        timeout=30,
    )
    assert answer.status_code == 413
    assert answer.json()["code"] == "request_entity_too_large"


def test_a_port_in_use_is_one_clear_line(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "web"],
            env=environment(settings, port),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.strip() == f"web: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_a_wrong_setting_is_one_clear_line(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "web"],
        env=environment(settings, 1) | {"CAPTIONING_PORT": "http"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("web: CAPTIONING_PORT")
    assert len(done.stderr.splitlines()) == 1


def test_it_listens_beyond_this_machine_with_keys_only(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "web"],
        env=environment(settings, 1) | {"CAPTIONING_HOST": "0.0.0.0"},  # noqa: S104  (refused)
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("web: CAPTIONING_HOST=0.0.0.0 is reached from other machines")
    assert "CAPTIONING_ACCESS=keys" in done.stderr
    assert len(done.stderr.splitlines()) == 1
