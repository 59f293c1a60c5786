"""A real web server process for each module, and a worker played by a thread."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import httpx
import pytest
from werkzeug.serving import make_server

from captioning import jobs, queries
from captioning.jobs import CaptionText
from captioning.queue import Queue
from captioning.settings import Settings
from tests import servers
from tests.acceptance.service import free_port
from tests.factories import MODEL
from web import create_app


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    folder = tmp_path_factory.mktemp("service")
    with servers.migrated_database("sqlite", folder) as url:
        queue = Queue(Settings(data_dir=folder, database_url=url))
        yield queue
        queue.close()


@pytest.fixture(scope="module")
def url(queue: Queue) -> Iterator[str]:
    """Where the server answers."""
    with served(queue.settings) as url:
        yield url


@pytest.fixture
def url_here(queue: Queue) -> Iterator[str]:
    """Where a server answers that runs in this process, with what a test has changed in it."""
    app = create_app(queue.settings)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    serving = Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()
    app.extensions["captioning"].close()


@contextmanager
def served(settings: Settings, **more: str) -> Iterator[str]:
    """The address of a server process. `more` are settings of its own."""
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if "CAPTIONING_" not in name},
        "CAPTIONING_DATA_DIR": str(settings.data_dir),
        "CAPTIONING_DATABASE_URL": settings.database_url,
        "CAPTIONING_PORT": str(port),
        **more,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "web"], env=environment, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/healthz")
            break
        except httpx.TransportError:
            time.sleep(0.05)
    try:
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def worker(queue: Queue) -> Iterator[None]:
    """Captions whatever comes by its file's name; fails what is called fail.jpg."""
    stop = Event()

    def work() -> None:
        while not stop.wait(0.05):
            with queue.database.write() as session:
                claim = jobs.claim(session, MODEL, limit=8, lease_s=60)
                if claim is None:
                    continue
            with queue.database.read() as session:
                names = {
                    job.id: queries.get_job(session, job.id).image.filename for job in claim.jobs
                }
            with queue.database.write() as session:
                for job_id, name in names.items():
                    if name == "fail.jpg":
                        jobs.fail(session, claim.token, job_id, code="model_error", message="No.")
                    else:
                        texts = [CaptionText(f"a photo of {name}", -1), CaptionText("a photo", -2)]
                        jobs.succeed(session, claim.token, {job_id: texts}, model_revision="r")

    thread = Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()
