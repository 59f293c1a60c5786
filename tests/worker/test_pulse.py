"""The heartbeat, the rounds and the register."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sqlalchemy import event, select, update

from captioning import jobs, queries
from captioning.database import db_now
from captioning.errors import DatabaseUnavailable
from captioning.models import Job, JobStatus, Worker
from captioning.queue import Queue
from clipcap import Captioner
from tests.worker.conftest import MODEL, Sabotaged, photo, read
from worker import pulse as pulse_module
from worker import station as station_module
from worker.pulse import STUCK_EXIT_CODE, Pulse
from worker.station import Station


def eventually(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.fixture
def quick(queue: Queue) -> Queue:
    """The same queue with timers that a test can wait for."""
    queue.settings = queue.settings.model_copy(
        update={"heartbeat_s": 0.05, "sweep_s": 0.05, "lease_s": 2.0}
    )
    return queue


def test_a_worker_is_registered_while_it_lives(quick: Queue, station: Station) -> None:
    pulse = Pulse(quick, station)
    pulse.start()
    with quick.database.read() as session:
        (row,) = queries.live_workers(session)
    assert row.models == [MODEL]

    pulse.stop()
    with quick.database.read() as session:
        assert not queries.live_workers(session)


def test_a_forgotten_worker_registers_again(quick: Queue, station: Station) -> None:
    pulse = Pulse(quick, station)
    pulse.start()
    with quick.database.write() as session:
        session.delete(session.scalars(select(Worker)).one())

    def registered() -> bool:
        with quick.database.read() as session:
            return bool(queries.live_workers(session))

    eventually(registered)
    pulse.stop()


def test_a_lease_outlasts_its_length_while_the_model_runs(
    quick: Queue, captioner: Captioner
) -> None:
    """The lease is cut to an instant, and the heartbeat is what saves it."""
    handle = quick.submit(photo("red"))
    renewed = threading.Event()

    def wait_for_renewal(_: torch.Tensor) -> None:
        with quick.database.write() as session:
            session.execute(update(Job).values(lease_expires_at=db_now(0.5)))
        before = read(quick, handle.id).lease_expires_at
        assert before is not None
        eventually(lambda: (read(quick, handle.id).lease_expires_at or before) > before)
        renewed.set()

    station = Station(quick, {MODEL: Sabotaged(captioner, wait_for_renewal)})
    pulse = Pulse(quick, station)
    pulse.start()
    eventually(lambda: handle.status == JobStatus.SUCCEEDED)
    station.close()
    pulse.stop()

    assert renewed.is_set()
    assert read(quick, handle.id).attempts == 1


def test_the_rounds_take_up_a_job_that_nobody_rang_for(quick: Queue, station: Station) -> None:
    pulse = Pulse(quick, station)
    pulse.start()
    handle = quick.submit(photo("red"))  # there is no broker in these tests

    eventually(lambda: handle.status == JobStatus.SUCCEEDED)
    pulse.stop()


def test_the_jobs_of_a_dead_worker_are_done_by_another(quick: Queue, station: Station) -> None:
    handle = quick.submit(photo("red"))
    with quick.database.write() as session:
        assert jobs.claim(session, MODEL, limit=1, lease_s=0.1)  # and is never heard of again

    pulse = Pulse(quick, station)
    pulse.start()
    eventually(lambda: handle.status == JobStatus.SUCCEEDED)
    pulse.stop()
    assert read(quick, handle.id).attempts == 2


@pytest.mark.slow
def test_an_idle_worker_asks_little_of_its_database(quick: Queue, station: Station) -> None:
    asked: defaultdict[str, list[str]] = defaultdict(list)

    def note(*what: Any) -> None:
        if not what[2].startswith("BEGIN"):
            asked[threading.current_thread().name].append(what[2])

    event.listen(quick.database.engine, "before_cursor_execute", note)
    pulse = Pulse(quick, station)
    pulse.start()
    duties = ("heartbeat", "sweep", "rounds", "courier_0")
    eventually(lambda: all(len(asked[duty]) > 15 for duty in duties))
    pulse.stop()
    station.close()

    def each(duty: str, begins: str) -> float:
        return len(asked[duty]) / sum(begins in statement for statement in asked[duty])

    assert each("heartbeat", "UPDATE worker") <= 2
    assert each("rounds", "SELECT") == 1
    assert each("courier_0", "SELECT") == 1
    asked["sweep"] = [text for text in asked["sweep"] if "DELETE" not in text]  # it tidied once
    assert each("sweep", "UPDATE turn") <= 4.5


@pytest.mark.slow
def test_a_hung_model_ends_the_process(
    quick: Queue, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[int] = []
    released = threading.Event()

    def exit_(code: int) -> None:
        exits.append(code)
        released.set()

    monkeypatch.setattr(pulse_module.os, "_exit", exit_)
    monkeypatch.setattr(pulse_module, "STUCK_AFTER_S", 0.2)

    def hang(_: torch.Tensor) -> None:
        released.wait(30)

    station = Station(quick, {MODEL: Sabotaged(captioner, hang)})
    quick.submit(photo("red"))
    pulse = Pulse(quick, station)
    pulse.start()
    assert released.wait(30)
    station.stop()
    pulse.stop()
    station.close()
    assert set(exits) == {STUCK_EXIT_CODE}


@pytest.mark.slow
def test_one_claim_that_hangs_ends_the_process_though_others_go_on(
    quick: Queue, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on one file of a network's disk: its lease would be renewed for ever."""
    released = threading.Event()
    monkeypatch.setattr(pulse_module.os, "_exit", lambda code: released.set())
    monkeypatch.setattr(pulse_module, "STUCK_AFTER_S", 1)
    hung = quick.submit(photo("red")).read().image.key
    get = quick.storage.get

    def hang(key: str) -> bytes:
        if key == hung:
            released.wait(30)
        return get(key)

    monkeypatch.setattr(quick.storage, "get", hang)
    station = Station(quick, {MODEL: captioner})
    pulse = Pulse(quick, station)
    pulse.start()
    eventually(lambda: bool(station.tokens))
    captioned = 0
    deadline = time.monotonic() + 30
    while not released.is_set() and time.monotonic() < deadline:
        quick.submit(photo("blue"), owner=f"{captioned}")
        captioned += station.work()
    station.stop()
    pulse.stop()
    station.close()
    assert released.is_set()
    assert captioned > 1


@pytest.mark.slow
def test_a_worker_that_waits_for_its_database_is_not_taken_for_hung(
    quick: Queue, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(pulse_module.os, "_exit", exits.append)
    monkeypatch.setattr(pulse_module, "STUCK_AFTER_S", 1)
    monkeypatch.setattr(station_module, "LAST_PAUSE_S", 0.2)
    succeed, back_at = jobs.succeed, time.monotonic() + 3

    def away(*arguments: Any, **named: Any) -> set[str]:
        if time.monotonic() < back_at:
            raise DatabaseUnavailable
        return succeed(*arguments, **named)

    monkeypatch.setattr(jobs, "succeed", away)
    handle = quick.submit(photo("red"))
    pulse = Pulse(quick, station)
    pulse.start()
    eventually(lambda: handle.status == JobStatus.SUCCEEDED)
    pulse.stop()
    assert exits == []
    assert handle.read().attempts == 1


@pytest.mark.slow
def test_an_idle_worker_is_not_taken_for_hung(
    quick: Queue, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(pulse_module.os, "_exit", exits.append)
    monkeypatch.setattr(pulse_module, "STUCK_AFTER_S", 2)  # a crowded machine needs most of it

    pulse = Pulse(quick, station)
    pulse.start()
    time.sleep(2.5)
    handle = quick.submit(photo("red"))
    eventually(lambda: handle.status == JobStatus.SUCCEEDED)
    pulse.stop()
    assert exits == []
