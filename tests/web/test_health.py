from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from captioning.database import Database
from captioning.migrate import downgrade
from captioning.queue import Queue
from captioning.settings import Settings
from tests import servers
from tests.web.outcomes import start_worker
from web import create_app, health


def test_the_process_lives_whatever_else_is_broken(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/captioning.db"
    client = create_app(Settings(data_dir=tmp_path, database_url=url)).test_client()
    assert client.get("/healthz").json == {"alive": True}
    assert client.get("/readyz").status_code == 503


def test_it_is_not_ready_without_a_worker(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["ready"] is False
    assert "bundled" in answer.json["checks"]["worker"]
    assert answer.json["checks"]["database"] == answer.json["checks"]["storage"] == "ok"


def test_a_broker_that_is_away_is_told_and_does_not_matter(
    client: FlaskClient, queue: Queue
) -> None:
    start_worker(queue)
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json["ready"] is True
    assert answer.json["checks"]["broker"] != "ok"


def test_many_who_ask_at_once_cost_one_look(
    app: APIFlask, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_worker(queue)
    looks: list[str] = []
    put = queue.storage.put

    def slow_put(key: str, data: bytes) -> None:
        looks.append(key)
        time.sleep(0.2)
        put(key, data)

    monkeypatch.setattr(queue.storage, "put", slow_put)
    monkeypatch.setattr(health, "KEPT_S", 60)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: app.test_client().get("/readyz"), range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
    assert len(looks) == 1


def test_what_was_found_is_soon_looked_at_again(
    client: FlaskClient, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert health.KEPT_S <= 1
    monkeypatch.setattr(health, "KEPT_S", 0)
    assert client.get("/readyz").status_code == 503
    start_worker(queue)
    assert client.get("/readyz").status_code == 200


def test_a_broker_that_answers_is_ok(settings: Settings) -> None:
    with_broker = settings.model_copy(update={"broker_url": servers.valkey().url})
    checks = create_app(with_broker).test_client().get("/readyz").json["checks"]
    assert checks["broker"] == "ok"


def test_an_old_schema_is_not_ready(client: FlaskClient, settings: Settings) -> None:
    database = Database(settings.database_url)
    downgrade(database, "base")
    database.close()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "captioning migrate" in answer.json["checks"]["database"]


def test_a_store_that_cannot_be_written_is_not_ready(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    broken = settings.model_copy(update={"storage_url": (tmp_path / "file" / "x").as_uri()})
    answer = create_app(broken).test_client().get("/readyz")
    assert answer.status_code == 503
    assert "image store" in answer.json["checks"]["storage"]
