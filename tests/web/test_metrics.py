"""What the web measures of its answers."""

from __future__ import annotations

from apiflask import APIFlask
from flask.testing import FlaskClient

from captioning.models import new_id
from captioning.queue import Queue
from tests.factories import add_jobs
from web.metrics import WebMetrics


def count(app: APIFlask, route: str, status: int, method: str = "GET") -> float | None:
    metrics: WebMetrics = app.extensions["captioning.metrics"]
    return metrics.registry.get_sample_value(
        "captioning_http_request_seconds_count",
        {"method": method, "route": route, "status": str(status)},
    )


def test_answers_are_measured_by_route_and_not_by_path(
    app: APIFlask, client: FlaskClient, queue: Queue
) -> None:
    for job_id in add_jobs(queue.database, 3):
        client.get(f"/api/v1/jobs/{job_id}")
    client.get(f"/api/v1/jobs/{new_id()}")
    assert count(app, "/api/v1/jobs/<job_id>", 200) == 3
    assert count(app, "/api/v1/jobs/<job_id>", 404) == 1


def test_what_no_route_matches_is_one_series(app: APIFlask, client: FlaskClient) -> None:
    client.get("/wp-admin")
    client.get("/nothing/here")
    client.open("/nothing/here", method="BREW")
    assert count(app, "unmatched", 404, method="") == 3


def test_refusals_are_measured(app: APIFlask, client: FlaskClient) -> None:
    client.post("/api/v1/jobs", headers={"Sec-Fetch-Site": "cross-site"})
    assert count(app, "/api/v1/jobs", 403, method="POST") == 1


def test_the_public_port_shows_no_metrics(client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 404


def test_the_queue_is_in_the_same_registry(app: APIFlask, queue: Queue) -> None:
    add_jobs(queue.database, 2)
    registry = app.extensions["captioning.metrics"].registry
    assert registry.get_sample_value("captioning_jobs_queued", {"model": "bundled"}) == 2
