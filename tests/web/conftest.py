"""The application on a fresh, really migrated SQLite database, with no broker and no worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioning.queue import Queue
from captioning.settings import Settings
from tests import servers
from web import create_app


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with servers.migrated_database("sqlite", tmp_path) as url:
        yield Settings(data_dir=tmp_path, database_url=url)


class ReadingClient(FlaskClient):
    """Reads each answer to its end, which closes the file that it is served from."""

    def open(self, *args: Any, buffered: bool = True, **kwargs: Any) -> TestResponse:
        return super().open(*args, buffered=buffered, **kwargs)


@pytest.fixture
def app(settings: Settings) -> Iterator[APIFlask]:
    app = create_app(settings)
    app.test_client_class = ReadingClient
    yield app
    app.extensions["captioning"].close()


@pytest.fixture
def client(app: APIFlask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def queue(app: APIFlask) -> Queue:
    found: Queue = app.extensions["captioning"]
    return found
