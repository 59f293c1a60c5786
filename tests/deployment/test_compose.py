"""docker-compose.yml: it names what exists, and its commands do what they promise, run as
processes of this machine on its PostgreSQL and Valkey."""

from __future__ import annotations

import re
from typing import Any

import pytest

from captioning.settings import PREFIX, Settings, load_settings
from tests.deployment.files import ROOT, compose, stage_of, stages

FILE = compose(POSTGRES_PASSWORD="s3cret")
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
GPUS = {name: service for name, service in OURS.items() if "gpu" in name}


def test_it_has_every_part() -> None:
    assert {
        "database",
        "broker",
        "migrate",
        "web",
        "worker",
        "objects",
        "prometheus",
        "grafana",
    } <= {*SERVICES}
    by_default = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert by_default == {"database", "broker", "migrate", "web", "worker"}


def test_a_password_has_no_default() -> None:
    with pytest.raises(KeyError, match="POSTGRES_PASSWORD"):
        compose()


@pytest.mark.parametrize("name", OURS)
def test_an_image_of_ours_is_built_from_a_stage_that_exists_and_is_confined(name: str) -> None:
    service = OURS[name]
    stage = stage_of(service)
    assert stage.name in stages()
    assert service["command"][0] in ("migrate", "web", "worker")
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["volumes"] == ["data:/data"]


@pytest.mark.parametrize("name", OURS)
def test_its_settings_are_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = stage_of(OURS[name]).environment | OURS[name]["environment"]
    for key, value in environment.items():
        if key.startswith(PREFIX):
            assert key.removeprefix(PREFIX).lower() in Settings.model_fields
            monkeypatch.setenv(key, value)
    settings = load_settings()
    assert re.search("@database/", settings.database_url)
    assert re.search("//broker:", settings.broker_url)
    assert settings.storage_url == "file:///data/storage"


def test_services_wait_for_what_exists_and_says_when_it_is_ready() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
            else:
                assert how["condition"] == "service_completed_successfully"
                assert SERVICES[other]["restart"] != "unless-stopped"


def test_volumes_are_declared_and_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).is_dir()
            else:
                assert source in FILE["volumes"]


def test_nothing_is_published_beyond_this_machine_by_default() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("number", [None, "0", "4"])
def test_the_number_of_workers_stands_where_the_next_command_finds_it(number: str | None) -> None:
    """And so do the profiles. `--scale` and `--profile` hold for one command: the upgrade's would
    go back to one worker, and leave those on GPUs on the old release."""
    said = {"WORKERS": number} if number else {}
    worker = compose(POSTGRES_PASSWORD="s3cret", **said)["services"]["worker"]
    assert worker["deploy"]["replicas"] == (number or "1")
    for page in ("README.md", "docker-compose.yml", "docs/deployment.md", "docs/operations.md"):
        commands = re.findall("docker compose [^`\n]*", (ROOT / page).read_text())
        assert not [line for line in commands if "--scale" in line or "--profile" in line]


def test_each_gpu_has_a_worker_of_its_own() -> None:
    devices = {
        name: service["deploy"]["resources"]["reservations"]["devices"]
        for name, service in GPUS.items()
    }
    ids = [device["device_ids"] for (device,) in devices.values()]
    assert ids == [[str(number)] for number in range(len(GPUS))]
    for count, profile in ((1, "gpu"), (2, "2-gpus"), (4, "4-gpus")):
        chosen = [name for name, service in GPUS.items() if profile in service["profiles"]]
        assert chosen == list(GPUS)[:count]
    assert all(stage_of(service).environment["NVIDIA_VISIBLE_DEVICES"] for service in GPUS.values())
