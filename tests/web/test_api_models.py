from __future__ import annotations

from flask.testing import FlaskClient

from captioning.queue import Queue
from tests.web.outcomes import start_worker


def test_a_model_is_available_once_a_worker_serves_it(client: FlaskClient, queue: Queue) -> None:
    offered = {"name": "bundled", "default": True}
    assert client.get("/api/v1/models").json == {"models": [{**offered, "available": False}]}
    start_worker(queue)
    assert client.get("/api/v1/models").json == {"models": [{**offered, "available": True}]}


def test_openapi_describes_every_route_of_the_api(client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").json
    assert document["openapi"].startswith("3.1")
    rules = {
        rule.rule.replace("<", "{").replace(">", "}")
        for rule in client.application.url_map.iter_rules()
        if rule.rule.startswith(("/api/v1/", "/model/"))
    }
    assert set(document["paths"]) == rules
