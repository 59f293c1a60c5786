"""deploy/kubernetes: its objects name what exists, and KEDA's query counts what it should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from sqlalchemy import make_url

from captioning.database import Database
from captioning.models import JobStatus
from captioning.settings import PREFIX, Settings, load_settings
from tests.deployment.files import ROOT, manifests, stages
from tests.factories import add_jobs
from tests.servers import migrated_database

FOLDER = ROOT / "deploy/kubernetes"
IMAGES = {"captioning-web": ("cpu", "web"), "captioning-worker-cpu": ("cpu", "worker")}


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [item for item in manifests() if item["kind"] == kind]


def pods() -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item["spec"]["template"] for item in of_kind("Deployment")}


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for pod in pods().values():
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            yield container["name"], container


OURS = {name: each for name, each in containers() if each["image"] in IMAGES}


def test_it_has_every_part() -> None:
    assert set(pods()) == {"captioning-broker", "captioning-web", "captioning-worker"}
    assert set(OURS) == {"migrate", "web", "worker"}


@pytest.mark.parametrize("name", OURS)
def test_a_container_fits_its_image(name: str) -> None:
    container = OURS[name]
    device, target = IMAGES[container["image"]]
    stage = stages(DEVICE=device)[target]
    assert container["args"] == [name]
    ports = {each["name"]: str(each["containerPort"]) for each in container.get("ports", [])}
    assert set(ports.values()) <= set(stage.last("EXPOSE").split())
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if asked := container.get(probe):
            asked_at = f":{ports[asked['httpGet']['port']]}{asked['httpGet']['path']}'"
            assert asked_at in stage.health_command[-1]
    writable = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert writable == {"/data", "/tmp"}  # noqa: S108


def test_pods_run_as_the_user_that_the_images_have() -> None:
    for name in ("captioning-web", "captioning-worker"):
        user = pods()[name]["spec"]["securityContext"]["runAsUser"]
        assert f"--uid {user} " in " ".join(stages()["base"].all("RUN"))


def test_everything_is_confined() -> None:
    for pod in pods().values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
    for _, container in containers():
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_what_is_referred_to_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        item["metadata"]["name"]: item
        for item in yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text())
    }
    (settings,) = of_kind("ConfigMap")
    for name in OURS:
        by_map, by_secret = OURS[name]["envFrom"]
        assert by_map["configMapRef"]["name"] == settings["metadata"]["name"]
        assert by_secret["secretRef"]["name"] in secrets
    (authentication,) = of_kind("TriggerAuthentication")
    (reference,) = authentication["spec"]["secretTargetRef"]
    assert reference["key"] in secrets[reference["name"]]["stringData"]

    given = settings["data"] | secrets["captioning-secrets"]["stringData"]
    for key, value in given.items():
        if key.startswith(PREFIX):
            assert key.removeprefix(PREFIX).lower() in Settings.model_fields
            monkeypatch.setenv(key, value)
    read = load_settings()
    assert make_url(read.broker_url).host in {
        item["metadata"]["name"] for item in of_kind("Service")
    }


def test_services_and_scaling_find_their_pods() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods().items()}
    for service in of_kind("Service"):
        assert service["spec"]["selector"] in labels.values()
    (scaled,) = of_kind("ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["name"] in pods()
    # The number of workers is not said twice.
    (worker,) = (item for item in of_kind("Deployment") if "worker" in item["metadata"]["name"])
    assert "replicas" not in worker["spec"]


def test_the_overlay_gives_each_worker_a_gpu() -> None:
    overlay = yaml.safe_load((FOLDER / "gpu/kustomization.yaml").read_text())
    (image,) = overlay["images"]
    assert (image["name"], image["newName"]) == ("captioning-worker-cpu", "captioning-worker-gpu")
    (patch,) = overlay["patches"]
    assert patch["target"]["name"] in pods()
    (change,) = yaml.safe_load(patch["patch"])
    *parents, last = change["path"].removeprefix("/spec/template/spec/containers/0/").split("/")
    place = OURS["worker"]
    for parent in parents:
        place = place[parent]
    assert (last.replace("~1", "/"), change["value"]) == ("nvidia.com/gpu", 1)


def test_kedas_query_counts_what_waits_and_what_runs(tmp_path: Path) -> None:
    (scaled,) = of_kind("ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    with migrated_database("postgresql", tmp_path) as url:
        database = Database(url)
        add_jobs(database, 3)
        add_jobs(database, 2, status=JobStatus.RUNNING)
        add_jobs(database, 4, status=JobStatus.SUCCEEDED)
        database.close()
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            found = connection.execute(trigger["metadata"]["query"]).fetchall()
    assert found == [(5,)]
