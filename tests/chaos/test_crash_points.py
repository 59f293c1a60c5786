"""A process dies at each point where something is half done. What it leaves is what the table in
docs/operations.md says, and what goes on afterwards ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from captioning.models import Job, JobStatus
from captioning.queue import Queue, Upload
from captioning.settings import Settings
from tests.acceptance.service import free_port
from tests.chaos.dying import POINTS
from tests.chaos.nursery import Nursery
from tests.chaos.processes import (
    assert_each_ended_once,
    environment,
    left,
    sweep_when_all_is_due,
    wait_until,
    web,
)
from tests.factories import photo
from worker.station import Station

pytestmark = pytest.mark.slow

KEY = {"Idempotency-Key": "once"}
NOTHING = (0, 0, 0, 0)
ACCEPTED = (0, 2, 4, 2)
LEFT_BY_AN_UPLOAD = {
    "after the image rows": [(2, 0, 0, 0)],
    "between the bytes": [(2, 0, files, 0) for files in range(4)],  # they are written at once
    "after the bytes": [(2, 0, 4, 0)],
    "inside the accepting transaction": [(2, 0, 4, 0)],
    "after the commit": [ACCEPTED],
    "after the ring": [ACCEPTED],
}
"""Pending and stored image rows, files, jobs: what may be found."""
LEFT_BY_A_DELETION = {
    "after the deletion": (1, 1, 4, 1),
    "after the deletion of the bytes": (1, 1, 2, 1),
}
LEFT_BY_A_WORKER = {
    "after the claim": JobStatus.RUNNING,
    "after inference": JobStatus.RUNNING,
    "inside the saving transaction": JobStatus.RUNNING,
    "after the save": JobStatus.SUCCEEDED,
}

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"

Dying = Callable[[str], AbstractContextManager[httpx.Client]]


def test_every_point_is_explained_and_died_at() -> None:
    died_at = [*LEFT_BY_AN_UPLOAD, *LEFT_BY_A_DELETION, *LEFT_BY_A_WORKER]
    section = OPERATIONS.read_text().partition("### Where a process may die")[2].partition("## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    assert rows[1:] == list(POINTS) == died_at


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "died"


@pytest.fixture
def dying(settings: Settings, mark: Path) -> Dying:
    """A web server whose process dies at a point, and is replaced by gunicorn."""
    port = free_port()
    return lambda point: web(settings, port, "tests.chaos.dying", point, str(mark))


def upload(client: httpx.Client) -> list[str]:
    data = [photo(colour=colour, format="PNG") for colour in ("red", "green")]
    sent = [("images", (f"{number}.png", each)) for number, each in enumerate(data)]
    answer = client.post("/api/v1/batches", files=sent, headers=KEY)
    assert answer.status_code == 202, answer.text
    return [job["id"] for job in answer.json()["jobs"]]


@pytest.mark.parametrize("point", LEFT_BY_AN_UPLOAD)
def test_an_upload_that_dies_is_accepted_whole_or_leaves_nothing(
    point: str, dying: Dying, mark: Path, queue: Queue, station: Station
) -> None:
    with dying(point) as client:
        with pytest.raises(httpx.TransportError):
            upload(client)
        assert mark.exists()
        assert left(queue) in LEFT_BY_AN_UPLOAD[point]
        accepted = left(queue) == ACCEPTED
        sweep_when_all_is_due(queue)
        assert left(queue) == (ACCEPTED if accepted else NOTHING)
        assert station.work() == (2 if accepted else 0)
        job_ids = upload(client)  # who got no answer sends it again, under its key
    assert station.work() == (0 if accepted else 2)
    assert_each_ended_once(queue, job_ids)


@pytest.mark.parametrize("point", LEFT_BY_A_DELETION)
def test_a_deletion_that_dies_is_finished_by_the_sweeper(
    point: str, dying: Dying, mark: Path, queue: Queue, station: Station
) -> None:
    with dying(point) as client:
        gone, kept = upload(client)
        station.work()
        with pytest.raises(httpx.TransportError):
            client.delete(f"/api/v1/jobs/{gone}")
        assert mark.exists()
        assert left(queue) == LEFT_BY_A_DELETION[point]
        assert client.get(f"/api/v1/jobs/{gone}").status_code == 404
    sweep_when_all_is_due(queue)
    assert_each_ended_once(queue, [kept])


@pytest.fixture
def uploads() -> Iterator[Upload]:
    return (Upload(f"{colour}.png", photo(colour=colour)) for colour in ("red", "green"))


@pytest.mark.parametrize("point", LEFT_BY_A_WORKER)
def test_what_a_worker_that_dies_had_in_hand_ends_once(
    point: str,
    settings: Settings,
    nursery: Nursery,
    mark: Path,
    queue: Queue,
    station: Station,
    uploads: Iterator[Upload],
) -> None:
    job_ids = list(queue.submit_many(uploads, queue.options("tiny", "beam", 1)).job_ids)
    log = settings.data_dir / "worker.log"
    process = nursery.start(environment(settings), log, dies=(point, mark))
    wait_until(lambda: not process.is_running(), log.read_text)
    assert mark.exists(), log.read_text()
    with queue.database.read() as session:
        assert {*session.scalars(select(Job.status))} == {LEFT_BY_A_WORKER[point]}
    saved = LEFT_BY_A_WORKER[point] == JobStatus.SUCCEEDED
    report = sweep_when_all_is_due(queue)
    assert report.queued_again == (set() if saved else {*job_ids})
    assert station.work() == (0 if saved else 2)
    assert_each_ended_once(queue, job_ids)
    with queue.database.read() as session:
        assert {*session.scalars(select(Job.attempts))} == {1 if saved else 2}
