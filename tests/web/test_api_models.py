from __future__ import annotations

from flask.testing import FlaskClient

from captioning.queue import Queue
from tests.web.outcomes import start_worker


def test_a_model_is_available_once_a_worker_serves_it(client: FlaskClient, queue: Queue) -> None:
    offered = {"name": "bundled", "default": True}
    assert client.get("/api/v1/models").json == {"models": [{**offered, "available": False}]}
    start_worker(queue)
    assert client.get("/api/v1/models").json == {"models": [{**offered, "available": True}]}
