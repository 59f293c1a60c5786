"""The same photograph twice costs a model one run, however many workers there are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from captioning import editing, jobs
from captioning.models import JobStatus, WebhookDelivery
from captioning.queue import JobHandle, Queue
from captioning.settings import Settings
from clipcap import Captioner
from tests import servers
from tests.worker.conftest import COLOURS, MODEL, Sabotaged, photo, read
from worker.station import Station

WAIT_S = 60


@pytest.fixture(params=["sqlite", "postgresql"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    with servers.migrated_database(request.param, tmp_path) as url:
        settings = Settings(
            data_dir=tmp_path,
            database_url=url,
            models={MODEL: "unused"},
            batch_size=4,
            broker_url=f"redis+socket://{tmp_path}/no-broker.sock",
        )
        queue = Queue(settings)
        yield queue
        queue.close()


class Counted:
    """A captioner that counts the images it is given, and can be held up or fail."""

    def __init__(self, captioner: Captioner) -> None:
        self.images = 0
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.error: Exception | None = None
        self.captioner: Any = Sabotaged(captioner, self._before)

    def _before(self, pixels: torch.Tensor) -> None:
        self.images += len(pixels)
        self.begun.set()
        assert self.go_on.wait(WAIT_S)
        if self.error is not None:
            error, self.error = self.error, None
            raise error


@pytest.fixture
def counted(captioner: Captioner) -> Counted:
    return Counted(captioner)


@pytest.fixture
def station(queue: Queue, counted: Counted) -> Iterator[Station]:
    station = Station(queue, {MODEL: counted.captioner})
    yield station
    station.close()


def succeeded(handles: list[JobHandle]) -> bool:
    return {handle.status for handle in handles} == {JobStatus.SUCCEEDED}


def test_what_was_captioned_before_is_answered_without_a_run(
    queue: Queue, station: Station, counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker.station")
    first = queue.submit(photo("red"), num_captions=2)
    station.work()
    again = queue.submit(photo("red"), num_captions=2)
    queue.storage.delete([read(queue, again.id).image.key])  # it is not even read

    assert station.work() == 1

    assert counted.images == 1
    job, source = read(queue, again.id), read(queue, first.id)
    assert job.status == JobStatus.SUCCEEDED
    assert [vars_of(caption) for caption in job.captions] == [
        vars_of(caption) for caption in source.captions
    ]
    assert vars(caplog.records[-1])["job_ids"] == [again.id]


def vars_of(caption: Any) -> tuple[object, ...]:
    return caption.rank, caption.text, caption.mean_log_probability, caption.model_revision


def test_many_at_once_cost_one_run_on_several_workers(
    queue: Queue, station: Station, counted: Counted
) -> None:
    handles = [queue.submit(photo("red")) for _ in range(30)]
    other = Station(queue, {MODEL: counted.captioner})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: each.work(), [station, other, station, other]))
    other.close()
    station.work()  # who found them in another's hands has gone to sleep

    assert counted.images == 1
    assert succeeded(handles)


@pytest.mark.parametrize(("end", "runs"), [("succeed", 1), ("cancel", 2), ("delete", 2)])
def test_what_comes_while_it_runs_waits_for_how_it_ends_and_lets_others_pass(
    queue: Queue,
    station: Station,
    counted: Counted,
    captioner: Captioner,
    end: str,
    runs: int,
) -> None:
    counted.go_on.clear()
    first = queue.submit(photo("red"))
    holder = threading.Thread(target=station.work)
    holder.start()
    assert counted.begun.wait(WAIT_S)
    twin, different = queue.submit(photo("red")), queue.submit(photo("blue"))
    other = Station(queue, {MODEL: captioner})
    assert other.work() == 1
    assert (twin.status, different.status) == (JobStatus.QUEUED, JobStatus.SUCCEEDED)
    other.close()

    if end == "delete":
        queue.delete([first.id])
    elif end == "cancel":
        with queue.database.write() as session:
            jobs.cancel(session, first.id)
    counted.go_on.set()
    holder.join(WAIT_S)

    assert succeeded([first, twin] if end == "succeed" else [twin])
    assert counted.images == runs


def test_what_waits_for_one_that_fails_runs_itself(
    queue: Queue, station: Station, counted: Counted
) -> None:
    first, *twins = (queue.submit(photo("red")) for _ in range(3))
    queue.storage.delete([read(queue, first.id).image.key])
    counted.error = RuntimeError("a passing fault")

    station.work()

    assert first.status == JobStatus.FAILED  # its own bytes are gone: no twin's are
    assert [read(queue, twin.id).error_code for twin in twins] == ["model_failed", None]
    assert [twin.status for twin in twins] == [JobStatus.QUEUED, JobStatus.SUCCEEDED]
    assert counted.images == 3  # one of them blank: does the model still work?


def test_an_edit_is_not_handed_on(queue: Queue, station: Station) -> None:
    first = queue.submit(photo("red"))
    station.work()
    with queue.database.write() as session:
        editing.edit(session, first.id, "Our door.")
        editing.mark_decorative(session, first.id, True)
    again = queue.submit(photo("red"))
    station.work()

    job = read(queue, again.id)
    assert job.text == read(queue, first.id).captions[0].text
    assert not job.decorative


def test_whoever_asked_is_told_of_an_answer(queue: Queue, station: Station) -> None:
    queue.submit(photo("red"))
    station.work()
    again = queue.submit(photo("red"), webhook_url="https://hooks.invalid/")
    station.work()
    with queue.database.read() as session:
        (delivery,) = session.query(WebhookDelivery).all()
    assert delivery.job_id == again.id


def test_different_photographs_fill_a_micro_batch_as_before(
    queue: Queue, station: Station, counted: Counted
) -> None:
    handles = [queue.submit(photo(colour)) for colour in COLOURS[:4]]
    assert station.work() == 4
    assert counted.images == 4
    assert succeeded(handles)
