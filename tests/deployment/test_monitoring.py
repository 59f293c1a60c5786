"""The files of Prometheus and Grafana fit Compose and each other. That their metrics exist is
asked of running processes, in test_running.py."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.deployment.files import ROOT, compose, stage_of
from worker import failures

DEPLOY = ROOT / "deploy"
SERVICES = compose(POSTGRES_PASSWORD="s3cret")["services"]
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/captioning.json").read_text())


def read(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text())


def mounts(service: str) -> dict[str, str]:
    """Place in the container → folder here."""
    volumes = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    return {place: source for source, place, *_ in volumes}


def test_prometheus_asks_every_service_that_has_metrics() -> None:
    (web,), (workers,) = (
        job["dns_sd_configs"] for job in read("prometheus/prometheus.yml")["scrape_configs"]
    )
    assert web["names"] == ["web"]
    assert set(workers["names"]) == {name for name in SERVICES if name.startswith("worker")}
    for asked, setting in ((web, "WEB"), (workers, "WORKER")):
        for name in asked["names"]:
            environment = stage_of(SERVICES[name]).environment
            assert environment[f"CAPTIONING_{setting}_METRICS_PORT"] == str(asked["port"])


def test_prometheus_finds_its_files() -> None:
    (rules,) = read("prometheus/prometheus.yml")["rule_files"]
    assert (DEPLOY / "prometheus" / rules).is_file()
    assert mounts("prometheus")["/etc/prometheus"] == "./deploy/prometheus"


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES
    asked = [panel["datasource"] for panel in DASHBOARD["panels"] if "datasource" in panel]
    assert {each["uid"] for each in asked} == {source["uid"]}
    (provider,) = read("grafana/provisioning/dashboards/captioning.yml")["providers"]
    assert mounts("grafana")[provider["options"]["path"]] == "./deploy/grafana/dashboards"


def test_panels_do_not_lie_over_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_alert_is_on_the_page_that_says_what_to_do() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    (group,) = read("prometheus/alerts.yml")["groups"]
    for rule in group["rules"]:
        assert f"| {rule['alert']} |" in page
        assert rule["annotations"]["summary"]


def test_every_code_that_a_job_can_fail_with_is_on_that_page() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    codes = {*failures.FATAL_CODES, "crashed"}
    listed = set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))
    assert codes == listed
