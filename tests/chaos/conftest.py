"""What the tests of this folder share: both databases, a broker, the tiny model, and a way to
start the product's processes on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from captioning.queue import Queue
from captioning.settings import Settings
from clipcap import Captioner
from tests import servers
from tests.chaos.nursery import Nursery
from worker.station import Station


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with servers.migrated_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def settings(database_url: str, tmp_path: Path, tiny_bundle: Path) -> Settings:
    broker = servers.valkey()
    with broker.client as client:
        client.flushall()
    return Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url=broker.url,
        storage_url=(tmp_path / "storage").as_uri(),
        models={"tiny": str(tiny_bundle)},
        batch_size=4,
    )


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    queue = Queue(settings)
    yield queue
    queue.close()


@pytest.fixture(scope="session")
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner.load(tiny_bundle)


@pytest.fixture
def station(queue: Queue, captioner: Captioner) -> Iterator[Station]:
    """A worker in good health."""
    station = Station(queue, {"tiny": captioner})
    yield station
    station.close()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()
