"""It stops as a whole, and says in one line why it does not start."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import MakeService
from tests.acceptance.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(
    make_service: MakeService, photographs: dict[str, bytes], number: signal.Signals
) -> None:
    service = make_service()
    service.start()
    service.upload(photographs)
    children = service.children()
    assert set(children) == {"valkey", "worker", "web"}
    family = [*children.values(), *service.process.children(recursive=True)]
    assert service.stop(number) == 0
    assert service.said.endswith("Stopping …\nStopped.\n")
    assert not any(process.is_running() for process in family)
    assert json.loads((service.data / "children.json").read_text()) == {}
    assert not list(service.data.rglob("*.sock"))


def test_a_second_signal_stops_everything_at_once(
    make_service: MakeService, photographs: dict[str, bytes]
) -> None:
    service = make_service()
    service.start()
    children = service.children()
    children["web"].suspend()  # it does not hear that it is to stop
    service.process.send_signal(signal.SIGINT)
    service.wait_until(lambda: service.said.endswith("Stopping …\n"))
    assert service.stop() == 1
    assert service.said.endswith("Stopping …\nStopped at once.\n")
    assert not any(process.is_running() for process in children.values())


def test_the_terminal_stays_calm(service: Service) -> None:
    starting, ready, *_ = service.said.splitlines()
    assert starting == f"Starting in {service.data} (models: tiny) …"
    assert ready.startswith(f"Ready: {service.url} (after ")


def test_a_second_start_says_who_is_running(service: Service) -> None:
    result = service.run_command("run")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"Error: The service is already running on {service.data} "
        f"(process {service.process.pid}). "
        "Stop it, or choose another folder by CAPTIONING_DATA_DIR.\n"
    )


def test_another_folder_on_the_same_port_says_so(service: Service, tmp_path: Path) -> None:
    other = Service(tmp_path, service.environment["CAPTIONING_MODELS"])
    other.environment["CAPTIONING_PORT"] = str(service.port)
    result = other.run_command("run")
    other.close()
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: Port {service.port} on 127.0.0.1 is in use.")


def test_a_model_that_is_not_there_ends_it_with_the_reason(
    make_service: MakeService, tmp_path: Path
) -> None:
    service = make_service(models=f"mine={tmp_path}/nothing")
    result = service.run_command("run")
    assert result.returncode == 1
    assert "worker ended with exit code 1" in result.stderr
    assert f"{tmp_path}/nothing" in result.stderr
    assert service.children() == {}
    assert not any("captioning" in line for line in leftover_commands(service))


def leftover_commands(service: Service) -> list[str]:
    return [
        " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["cmdline"])
        if str(service.data) in " ".join(process.info["cmdline"] or ())
    ]
