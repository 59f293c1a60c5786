"""The same tests on SQLite and on PostgreSQL, each test on a fresh database at head."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import QueuePool

from captioning.database import Database
from captioning.queue import Queue
from captioning.settings import Settings
from tests import servers
from tests.servers import Valkey


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with servers.migrated_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    assert left_open(database) == 0
    database.close()


@pytest.fixture
def settings(database_url: str, tmp_path: Path, valkey: Valkey) -> Settings:
    return Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url=valkey.url,
        storage_url=(tmp_path / "storage").as_uri(),
        batch_size=4,
    )


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    queue = Queue(settings)
    yield queue
    assert left_open(queue.database) == 0
    queue.close()


def left_open(database: Database) -> int:
    """Connections in use when a test is over: a transaction that nobody ended."""
    assert isinstance(database.engine.pool, QueuePool)
    return database.engine.pool.checkedout()
