"""deploy/kubernetes: its objects name what exists, and KEDA's query counts what it should."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from sqlalchemy import make_url

from captioning.database import Database
from captioning.errors import SettingsError
from captioning.models import JobStatus
from captioning.settings import PREFIX, Settings, load_settings
from tests.deployment.files import ROOT, manifests, stages
from tests.factories import add_jobs
from tests.servers import migrated_database
from web.__main__ import GRACEFUL_TIMEOUT_S

FOLDER = ROOT / "deploy/kubernetes"
KUSTOMIZATIONS = ["base", "gpu"]
IMAGES = {"captioning-web": ("cpu", "web"), "captioning-worker-cpu": ("cpu", "worker")}


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [item for item in manifests() if item["kind"] == kind]


def pods() -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item["spec"]["template"] for item in of_kind("Deployment")}


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for pod in pods().values():
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            yield container["name"], container


def kustomization(folder: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())
    return loaded


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


def test_no_service_of_the_namespace_becomes_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes gives each container variables for each Service, unless the pod says no. Those of
    the Service captioning-broker begin as our settings do, and no container would start."""
    (broker,) = (item for item in of_kind("Service") if "broker" in item["metadata"]["name"])
    prefix = broker["metadata"]["name"].upper().replace("-", "_")
    monkeypatch.setenv(f"{prefix}_PORT", "tcp://10.0.0.1:6379")
    with pytest.raises(SettingsError, match=f"unknown setting: {prefix}_PORT"):
        load_settings()
    assert {name: pod["spec"].get("enableServiceLinks") for name, pod in pods().items()} == {
        name: False for name in pods()
    }


def test_web_pods_are_left_alone_while_many_upload_at_once() -> None:
    """/healthz waits for one of the threads that take uploads in: 5.65 s were measured while 60
    came at once."""
    for probe, at_least_s in (("readinessProbe", 10), ("livenessProbe", 30)):
        asked = OURS["web"][probe]
        assert asked["periodSeconds"] >= asked["timeoutSeconds"] >= at_least_s


def test_a_web_pod_that_goes_listens_until_nobody_is_sent_to_it_any_more() -> None:
    """Its SIGTERM and the news that it is going leave at the same time, and the news is slower."""
    command, seconds = OURS["web"]["lifecycle"]["preStop"]["exec"]["command"]
    assert (command, seconds) == ("sleep", "5")
    grace_s = pods()["captioning-web"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= int(seconds) + GRACEFUL_TIMEOUT_S + 10
    assert "slim" in stages()["web"].last("IMAGE")  # of Debian, where `sleep` is always there


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


def changed(container: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The worker's container after a JSON patch (RFC 6902) of a kustomization."""
    assert patch["target"] == {"kind": "Deployment", "name": "captioning-worker"}
    result = deepcopy(container)
    for change in yaml.safe_load(patch["patch"]):
        path = change["path"].removeprefix("/spec/template/spec/containers/0/")
        *parents, last = [part.replace("~1", "/") for part in path.split("/")]
        place = result
        for parent in parents:
            place = place[parent]
        assert change["op"] == ("replace" if last in place else "add")
        place[last] = change["value"]
    return result


def test_the_overlay_gives_each_worker_a_gpu() -> None:
    (patch,) = kustomization("gpu")["patches"]
    worker = changed(OURS["worker"], patch)
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert worker["image"] == "captioning-worker-gpu"


def test_each_image_has_one_place_for_its_new_name() -> None:
    """And none is looked for by a name that another kustomization may have replaced already."""
    named = {
        folder: {image["name"] for image in kustomization(folder)["images"]}
        for folder in KUSTOMIZATIONS
    }
    assert named == {"base": set(IMAGES), "gpu": {"captioning-worker-gpu"}}
    page = (ROOT / "docs/deployment.md").read_text()
    for folder, images in named.items():
        (line,) = re.findall(rf"^\| `deploy/kubernetes/{folder}/.*$", page, flags=re.MULTILINE)
        assert all(image in line for image in images)


def test_the_overlay_has_all_that_the_base_has() -> None:
    assert manifests(FOLDER / "gpu") == manifests(FOLDER / "base")


def test_a_kustomization_inside_what_it_is_made_of_is_a_cycle(tmp_path: Path) -> None:
    """As kubectl refuses it."""
    inner = tmp_path / "gpu"
    inner.mkdir()
    (inner / "kustomization.yaml").write_text("resources: [..]")
    with pytest.raises(ValueError, match="cycle"):
        manifests(inner)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl here")
def test_kubectl_builds_it_under_names_of_ones_own(tmp_path: Path) -> None:
    copied = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, copied)
    for folder in KUSTOMIZATIONS:
        file = copied / folder / "kustomization.yaml"
        file.write_text(
            re.sub(r"name: (\S+), newTag", r"name: \1, newName: mine/\1, newTag", file.read_text())
        )
    for folder, device in zip(KUSTOMIZATIONS, ("cpu", "gpu"), strict=True):
        built = subprocess.run(
            ["kubectl", "kustomize", copied / folder], capture_output=True, text=True, check=True
        ).stdout
        images = set(re.findall(r"image: (\S+)", built)) - {"valkey/valkey:8-alpine"}
        assert images == {"mine/captioning-web:latest", f"mine/captioning-worker-{device}:latest"}
        assert built.count("nvidia.com/gpu: 1") == (device == "gpu")
        assert built.count("enableServiceLinks: false") == len(pods())


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
