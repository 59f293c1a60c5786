"""The commands of docker-compose.yml in the images of the Dockerfile, as processes of this
machine, with its PostgreSQL and Valkey: from an upload to its caption, metrics and logs."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.service import free_port
from tests.deployment.container import Container, stop
from tests.deployment.files import ROOT, compose, stage_of
from tests.factories import photo
from tests.servers import Valkey, postgresql

pytestmark = pytest.mark.slow

WAIT_S = 240
EXTRAS = {"web": ("web", "postgresql"), "worker": ("model", "postgresql")}
METRIC = r"\b(?:captioning|process)_[a-z_]+\b"


@dataclass
class Stack:
    """The running services."""

    database_url: str
    broker: Valkey
    ports: dict[str, str]
    containers: dict[str, Container]
    environments: dict[str, dict[str, str]]
    processes: dict[str, subprocess.Popen[str]]
    logs: dict[str, Path]
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            for name in ("web", "worker"):
                assert self.processes[name].poll() is None, self.logs[name].read_text()
                assert time.monotonic() < deadline, self.logs[name].read_text()
            time.sleep(0.3)

    def healthy(self, name: str) -> bool:
        return self.containers[name].healthy(self.environments[name])

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{self.ports[str(port)]}"

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What a service has logged as JSON; each line must be that."""
        return [json.loads(line) for line in self.logs[name].read_text().splitlines()]


@pytest.fixture(scope="module")
def stack(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("compose")
    services = compose(POSTGRES_PASSWORD="s3cret", MODELS=f"tiny={tiny_bundle}")["services"]
    with postgresql().database() as database_url, closing(Valkey()) as broker:
        ports = {str(port): str(free_port()) for port in (8000, 9100, 9101)}
        urls = {
            "postgresql+psycopg://captioning:s3cret@database/captioning": database_url,
            "redis://broker:6379/0": broker.url,
        }
        containers = {
            name: Container(
                stage_of(services[name]), folder, extras=extras, mapped={**ports, **urls}
            )
            for name, extras in EXTRAS.items()
        }
        containers["migrate"] = containers["web"]
        stack = Stack(
            database_url,
            broker,
            ports,
            containers,
            {name: services[name]["environment"] for name in containers},
            {},
            {name: folder / f"{name}.log" for name in containers},
        )

        def start(name: str) -> None:
            stack.processes[name] = containers[name].start(
                services[name]["command"], stack.environments[name], stack.logs[name]
            )

        start("migrate")
        try:
            assert stack.processes["migrate"].wait(WAIT_S) == 0, stack.logs["migrate"].read_text()
            stack.key = first_key(stack)
            for name in ("web", "worker"):
                start(name)
            stack.wait_until(lambda: stack.healthy("web") and stack.healthy("worker"))
            yield stack
        finally:
            for process in stack.processes.values():
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def captioned(stack: Stack) -> dict[str, Any]:
    """A job that has gone all the way."""
    return caption(stack, "red", request_id="edge-1")


def first_key(stack: Stack) -> str:
    """docs/deployment.md, by `docker compose exec`."""
    log = stack.logs["web"].with_name("keys.log")
    command = ["keys", "create", "ME", "--role", "admin"]
    making = stack.containers["web"].start(command, stack.environments["web"], log)
    assert making.wait(WAIT_S) == 0, log.read_text()
    (key,) = re.findall(r"^cap_\S+$", log.read_text(), flags=re.MULTILINE)
    return str(key)


def upload(stack: Stack, colour: str, *, request_id: str) -> httpx.Response:
    return httpx.post(
        f"{stack.url(8000)}/api/v1/jobs",
        files={"image": ("picture.png", photo(colour=colour, format="PNG"))},
        headers={"X-Request-ID": request_id, **stack.headers},
        timeout=WAIT_S,
    )


def shown(stack: Stack, port: int) -> str:
    """The metrics of a service."""
    return httpx.get(f"{stack.url(port)}/metrics", timeout=WAIT_S).text


def caption(stack: Stack, colour: str, *, request_id: str) -> dict[str, Any]:
    """Upload a picture and wait for its caption."""
    answer = upload(stack, colour, request_id=request_id)
    assert answer.status_code == 202, answer.text
    location = answer.headers["Location"]
    at = {"base_url": stack.url(8000), "headers": stack.headers}
    with httpx.Client(**at, timeout=WAIT_S) as client:
        stack.wait_until(lambda: client.get(f"{location}?wait=20").json()["status"] == "succeeded")
        job: dict[str, Any] = client.get(location).json()
    return job


def test_an_upload_gets_its_caption(captioned: dict[str, Any]) -> None:
    assert "red" in captioned["caption"]


def test_each_log_line_is_an_object_and_the_requests_id_leads_from_web_to_worker(
    stack: Stack, captioned: dict[str, Any]
) -> None:
    (queued,) = [line for line in stack.lines("web") if line.get("request_id") == "edge-1"]
    assert queued["job_ids"] == [captioned["id"]]
    (done,) = [line for line in stack.lines("worker") if "edge-1" in line.get("request_ids", [])]
    assert done["job_ids"] == [captioned["id"]]


def test_no_log_line_has_a_password_or_a_key(stack: Stack, captioned: dict[str, Any]) -> None:
    for log in stack.logs.values():
        assert "s3cret" not in log.read_text()
        assert stack.key not in log.read_text()


def test_who_has_no_key_is_not_let_in(stack: Stack) -> None:
    assert httpx.get(f"{stack.url(8000)}/api/v1/jobs", timeout=WAIT_S).status_code == 401


def exported(stack: Stack) -> set[str]:
    """The names of all samples that web and worker export, and of the series they would have."""
    found = set()
    for port in (9100, 9101):
        for family in text_string_to_metric_families(shown(stack, port)):
            found |= {sample.name for sample in family.samples}
            if family.type == "counter":
                found.add(f"{family.name}_total")  # with labels that have not occurred yet
    return found


def expressions() -> list[str]:
    """Every PromQL expression of the dashboard and of the alerts."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/captioning.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries = [variable["query"] for variable in dashboard["templating"]["list"]]
    alerts = re.findall(
        r"expr: (?:\|\n)?(.*?)\n +(?:for|annotations):",
        (ROOT / "deploy/prometheus/alerts.yml").read_text(),
        flags=re.DOTALL,
    )
    return [target["expr"] for target in targets] + queries + alerts


def test_every_metric_of_the_dashboard_and_the_alerts_is_exported(
    stack: Stack, captioned: dict[str, Any]
) -> None:
    asked_for = {name for text in expressions() for name in re.findall(METRIC, text)}
    assert len(asked_for) > 15
    assert asked_for - exported(stack) == set()


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert(
    stack: Stack, captioned: dict[str, Any]
) -> None:
    asked_for = {name for text in expressions() for name in re.findall(METRIC, text)}
    ours = {
        re.sub("_(bucket|sum|count)$", "", name)
        for name in exported(stack)
        if name.startswith("captioning_")
    }
    assert ours == {re.sub("_(bucket|sum|count)$", "", name) for name in asked_for} - {
        "process_resident_memory_bytes"
    }


def test_without_the_broker_captions_only_come_later(
    stack: Stack, captioned: dict[str, Any]
) -> None:
    stack.broker.stop()
    assert "green" in caption(stack, "green", request_id="edge-3")["caption"]
    stack.broker.start()


def test_without_the_database_uploads_are_refused_until_it_is_back(
    stack: Stack, captioned: dict[str, Any]
) -> None:
    postgresql().stop()
    try:
        refused = upload(stack, "white", request_id="edge-4")
        stack.wait_until(lambda: "captioning_database_up 0.0" in shown(stack, 9100))
    finally:
        postgresql().start()
    assert refused.status_code == 503
    assert refused.json()["code"] == "database_unavailable"
    assert "Retry-After" in refused.headers
    assert "white" in caption(stack, "white", request_id="edge-5")["caption"]
    for name in ("web", "worker"):
        assert stack.lines(name)  # what was said of all this is JSON, too


def test_what_runs_goes_on_while_the_next_release_expands_the_schema(
    stack: Stack, captioned: dict[str, Any]
) -> None:
    """docs/operations.md, "Upgrading without a pause"."""
    with psycopg.connect(stack.database_url.replace("+psycopg", "")) as connection:
        connection.execute("ALTER TABLE job ADD COLUMN of_the_next_release text DEFAULT 'new'")
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "blue" in caption(stack, "blue", request_id="edge-2")["caption"]
    log = stack.logs["worker"].with_name("late-worker.log")
    late = stack.containers["worker"].start(["worker"], stack.environments["worker"], log)
    assert late.wait(WAIT_S) == 1
    assert "a newer release has migrated it" in log.read_text()


def test_they_end_well_when_they_are_told_to(stack: Stack, captioned: dict[str, Any]) -> None:
    """The last of the module: it leaves nothing running."""
    for name in ("web", "worker"):
        assert stop(stack.processes[name]) == 0, stack.logs[name].read_text()
        assert not stack.healthy(name)
