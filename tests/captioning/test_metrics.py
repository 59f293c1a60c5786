"""The queue's gauges, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event

from captioning import metrics, workers
from captioning.database import db_now
from captioning.metrics import QueueCollector
from captioning.models import JobStatus, new_id
from captioning.queue import Queue
from captioning.settings import Settings
from tests import servers
from tests.factories import add_job, add_jobs


@pytest.fixture(params=["sqlite", "postgresql"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    with servers.migrated_database(request.param, tmp_path) as url:
        models = {"bundled": "bundled", "idle": "idle"}
        queue = Queue(Settings(data_dir=tmp_path, database_url=url, models=models))
        yield queue
        queue.close()


@pytest.fixture
def registry(queue: Queue) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(QueueCollector(queue))
    return registry


def gauge(registry: CollectorRegistry, name: str, model: str = "bundled") -> float | None:
    return registry.get_sample_value(f"captioning_{name}", {"model": model})


def test_it_counts_what_waits_and_what_runs_by_model(
    queue: Queue, registry: CollectorRegistry
) -> None:
    add_jobs(queue.database, 3)
    add_jobs(queue.database, 2, status=JobStatus.RUNNING)
    add_jobs(queue.database, 4, status=JobStatus.SUCCEEDED)
    add_jobs(queue.database, 1, model="withdrawn")
    assert gauge(registry, "jobs_queued") == 3
    assert gauge(registry, "jobs_running") == 2
    assert gauge(registry, "jobs_queued", "idle") == 0
    assert gauge(registry, "jobs_queued", "withdrawn") == 1


def test_the_oldest_is_the_one_that_could_be_claimed_longest_ago(
    queue: Queue, registry: CollectorRegistry
) -> None:
    with queue.database.write() as session:
        add_job(session, available_at=db_now(-100))
        add_job(session, available_at=db_now(-50))
        add_job(session, model="idle", available_at=db_now(50))  # waits for its next attempt
    oldest_s = gauge(registry, "oldest_queued_seconds")
    assert oldest_s is not None
    assert 100 <= oldest_s < 400
    assert gauge(registry, "oldest_queued_seconds", "idle") == 0


def test_it_counts_the_workers_that_live(queue: Queue, registry: CollectorRegistry) -> None:
    with queue.database.write() as session:
        for models in (["bundled"], ["bundled", "idle"]):
            workers.register(session, new_id(), name="1@host", models=models)
    assert (gauge(registry, "workers"), gauge(registry, "workers", "idle")) == (2, 1)


def test_scraping_often_costs_the_database_little(
    queue: Queue, registry: CollectorRegistry
) -> None:
    statements: list[str] = []
    event.listen(
        queue.database.engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, *rest: statements.append(statement),
    )
    list(registry.collect())
    first = len(statements)
    for _ in range(20):
        list(registry.collect())
    assert len(statements) == first


def test_it_looks_again_after_a_while(
    queue: Queue, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gauge(registry, "jobs_queued") == 0
    monkeypatch.setattr(metrics, "FRESH_S", 0)
    add_jobs(queue.database, 1)
    assert gauge(registry, "jobs_queued") == 1


def test_a_database_that_is_away_is_said_and_spoils_no_scrape(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/captioning.db"
    queue = Queue(Settings(data_dir=tmp_path, database_url=url))
    registry = CollectorRegistry()
    registry.register(QueueCollector(queue))
    assert registry.get_sample_value("captioning_database_up") == 0
    assert gauge(registry, "jobs_queued") is None
    queue.close()
