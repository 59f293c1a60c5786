"""The product's processes as tests start them, and how the service is asked whether all is well."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
from sqlalchemy import select, update

from captioning.database import db_now
from captioning.models import Image, Job, JobStatus, Turn
from captioning.queue import Queue
from captioning.settings import Settings
from captioning.sweeper import ABANDONED_AFTER_S, SweepReport, sweep
from tests.servers import end_with_the_tests

WAIT_S = 240
"""A machine may be busy. Nothing is expected to take as long."""


def environment(settings: Settings, **more: object) -> dict[str, str]:
    """What makes a process of the product read these settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CAPTIONING_")}
    models = ",".join(f"{name}={source}" for name, source in settings.models.items())
    given = settings.model_dump(exclude_unset=True) | {"models": models} | more
    return inherited | {f"CAPTIONING_{name.upper()}": str(value) for name, value in given.items()}


def wait_until(condition: Callable[[], object], saying: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, saying()
        time.sleep(0.05)


@contextmanager
def web(settings: Settings, port: int, *command: str) -> Iterator[httpx.Client]:
    """`python -m web`, or another command of Python's, and a client of it."""
    log = settings.data_dir / f"web-{port}.log"
    with log.open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *(command or ("web",))],
            env=environment(settings, port=port),
            stdout=said,
            stderr=said,
            preexec_fn=end_with_the_tests,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
            wait_until(lambda: answers(client), log.read_text)
            yield client
    finally:
        process.terminate()  # a killed one would leave its child
        process.wait(WAIT_S)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


# --- what is left, and what puts it right ---------------------------------------------------


def files(queue: Queue) -> list[Path]:
    root = Path(url2pathname(urlsplit(queue.settings.storage_url).path))
    return [path for path in root.rglob("*.jpg")]


def left(queue: Queue) -> tuple[int, int, int, int]:
    """Pending and stored image rows, files, jobs."""
    with queue.database.read() as session:
        stored = [at is not None for at in session.scalars(select(Image.stored_at))]
        jobs = len(session.scalars(select(Job.id)).all())
    return stored.count(False), stored.count(True), len(files(queue)), jobs


def make_all_due(queue: Queue) -> None:
    """As if the time of every lease, turn and abandoned upload had come."""
    with queue.database.write() as session:
        session.execute(update(Turn).values(next_at=db_now(-1)))
        pending = update(Image).where(Image.stored_at.is_(None))
        session.execute(pending.values(created_at=db_now(-ABANDONED_AFTER_S - 1)))
        running = update(Job).where(Job.status == JobStatus.RUNNING)
        session.execute(running.values(lease_expires_at=db_now(-1)))


def sweep_when_all_is_due(queue: Queue) -> SweepReport:
    """Where no worker runs that would take the turn."""
    make_all_due(queue)
    report = sweep(queue)
    assert report is not None
    return report


def assert_each_ended_once(queue: Queue, accepted: list[str]) -> None:
    """These jobs and no others are there, each with its one caption, its image and the two
    files of that."""
    with queue.database.read() as session:
        jobs = session.scalars(select(Job)).all()
        image_ids = set(session.scalars(select(Image.id)))
    assert sorted(job.id for job in jobs) == sorted(accepted)
    assert Counter(job.status for job in jobs) == {JobStatus.SUCCEEDED: len(accepted)}
    assert {len(job.captions) for job in jobs} == {1}
    assert image_ids == {job.image_id for job in jobs}
    kept = {path for job in jobs for path in (job.image.key, job.image.thumbnail_key)}
    assert sorted(f"{path.parent.name}/{path.name}" for path in files(queue)) == sorted(kept)
