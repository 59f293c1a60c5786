"""When a waiting job will have its caption, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from captioning import forecast
from captioning.database import Database
from captioning.forecast import Forecast
from captioning.models import JobStatus, Priority
from tests.factories import add_job, read_job

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def expected(database: Database, job_id: str) -> Forecast | None:
    with database.read() as session:
        return forecast.of_job(session, read_job(database, job_id))


def finish(database: Database, started_s: float, finished_s: float, count: int = 1) -> None:
    with database.write() as session:
        for _ in range(count):
            add_job(
                session,
                JobStatus.SUCCEEDED,
                started_at=NOW + timedelta(seconds=started_s),
                finished_at=NOW + timedelta(seconds=finished_s),
            )


def wait(database: Database, **columns: object) -> str:
    with database.write() as session:
        return add_job(session, **columns)


def test_its_place_is_what_the_queue_takes_before_it(database: Database) -> None:
    last = wait(database, priority=Priority.BULK)
    second, third = wait(database, place=1), wait(database, place=2)
    first = wait(database, place=0)
    wait(database, model="other")
    wait(database, status=JobStatus.SUCCEEDED)
    places = [expected(database, job) for job in (first, second, third, last)]
    assert [place.ahead for place in places if place] == [0, 1, 2, 3]


@pytest.mark.parametrize("status", [status for status in JobStatus if status != JobStatus.QUEUED])
def test_what_does_not_wait_has_no_place(database: Database, status: JobStatus) -> None:
    assert expected(database, wait(database, status=status)) is None


def test_without_captions_so_far_there_is_no_telling(database: Database) -> None:
    assert expected(database, wait(database)) == Forecast(0, None)


def test_time_goes_by_what_the_last_ones_took_while_there_was_work(database: Database) -> None:
    finish(database, 0, 4, count=4)  # a micro-batch
    finish(database, 100, 104, count=2)  # after a pause, two workers that overlap
    finish(database, 102, 106, count=4)
    wait(database)
    job = wait(database)
    assert expected(database, job) == Forecast(1, 2 * 1.0)
    wait(database, status=JobStatus.RUNNING)
    assert expected(database, job) == Forecast(1, 3 * 1.0)


def test_another_models_time_tells_nothing(database: Database) -> None:
    finish(database, 0, 4)
    assert expected(database, wait(database, model="other")) == Forecast(0, None)


def test_a_long_queue_is_not_counted_to_its_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "MOST_COUNTED", 2)
    finish(database, 0, 1)
    for _ in range(4):
        job = wait(database)
    assert expected(database, job) == Forecast(2, None)
