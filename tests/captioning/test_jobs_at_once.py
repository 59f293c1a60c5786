"""Several workers, sweepers and people at the same jobs at the same moment."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from sqlalchemy import func, select

from captioning import jobs
from captioning.database import Database
from captioning.errors import WrongState
from captioning.jobs import CaptionText
from captioning.models import Caption, Job, JobStatus
from tests.factories import MODEL, add_jobs, read_job

T = TypeVar("T")
TEXT = [CaptionText("a dog on a beach", -0.5)]


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run all of them from the same starting line, each in a thread of its own."""
    line = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        line.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_claimers_never_share_a_job(database: Database) -> None:
    queued = add_jobs(database, 60)

    def drain() -> list[str]:
        taken: list[str] = []
        while True:
            with database.write() as session:
                claim = jobs.claim(session, MODEL, limit=4, lease_s=60)
            if claim is None:
                return taken
            taken += [job.id for job in claim.jobs]

    shares = at_once([drain] * 6)
    assert sorted(job_id for share in shares for job_id in share) == queued
    assert {read_job(database, job_id).attempts for job_id in queued} == {1}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_claimer_passes_over_what_another_is_claiming(database: Database) -> None:
    """It neither waits for the other nor goes away with nothing."""
    queued = add_jobs(database, 4)
    with database.write() as first, database.write() as second:
        one = jobs.claim(first, MODEL, limit=2, lease_s=60)
        two = jobs.claim(second, MODEL, limit=2, lease_s=60)
    assert one is not None
    assert two is not None
    assert [job.id for job in (*one.jobs, *two.jobs)] == queued


@pytest.mark.parametrize("rival", ["cancel", "expire", "succeed"])
def test_of_two_who_end_a_job_one_wins(database: Database, rival: str) -> None:
    for job_id in add_jobs(database, 8):
        with database.write() as session:
            claim = jobs.claim(session, MODEL, limit=1, lease_s=-1)
        assert claim is not None

        def succeed(job_id: str = job_id, token: str = claim.token) -> bool:
            with database.write() as session:
                return bool(jobs.succeed(session, token, {job_id: TEXT}, model_revision="r"))

        def cancel(job_id: str = job_id) -> bool:
            try:
                with database.write() as session:
                    jobs.cancel(session, job_id)
            except WrongState:
                return False
            return True

        def expire(job_id: str = job_id) -> bool:
            with database.write() as session:
                return job_id in jobs.expire_leases(session)[0]

        won = at_once([succeed, {"cancel": cancel, "expire": expire, "succeed": succeed}[rival]])
        assert sum(won) == 1
        job = read_job(database, job_id)
        assert len(job.captions) == (job.status == JobStatus.SUCCEEDED)
        if job.status == JobStatus.QUEUED:
            with database.write() as session:
                jobs.cancel(session, job_id)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_heartbeat_and_sweeper_pass_over_rows_that_are_being_saved(database: Database) -> None:
    """They take the rows of many owners: waiting for one while holding another deadlocks."""
    first, second = add_jobs(database, 2)
    with database.write() as session:
        claim = jobs.claim(session, MODEL, limit=2, lease_s=-1)
    assert claim is not None
    with database.write() as saving:
        assert jobs.succeed(saving, claim.token, {second: TEXT}, model_revision="r")
        with database.write() as beating:
            assert jobs.renew(beating, [claim.token], lease_s=-1) == 1
        with database.write() as sweeping:
            assert jobs.expire_leases(sweeping) == ({first}, set())
        assert not jobs.fail(saving, claim.token, first, code="bad", message="Bad.")
    assert read_job(database, second).status == JobStatus.SUCCEEDED


def test_workers_heartbeats_and_sweepers_do_not_deadlock(database: Database) -> None:
    """Each of them updates many rows in one statement: they must take them in one order."""
    add_jobs(database, 120, max_attempts=1000)
    tokens: set[str] = set()
    done = threading.Event()

    def work(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        while True:
            with database.write() as session:
                claim = jobs.claim(session, MODEL, limit=8, lease_s=60)
            if claim is None:
                return
            tokens.add(claim.token)
            held = [job.id for job in claim.jobs]
            chance.shuffle(held)
            half = len(held) // 2
            with database.write() as session:
                captions = {job_id: TEXT for job_id in held[half:]}
                jobs.succeed(session, claim.token, captions, model_revision="r")
                for job_id in held[:half]:
                    jobs.fail(session, claim.token, job_id, code="bad", message="Bad.")

    def beat() -> None:
        while not done.is_set():
            with database.write() as session:
                jobs.renew(session, list(tokens), lease_s=60)

    def sweep() -> None:
        while not done.is_set():
            with database.write() as session:
                jobs.expire_leases(session)

    def work_then_stop(seed: int) -> None:
        try:
            work(seed)
        finally:
            done.set()

    at_once([beat, sweep, *(lambda seed=seed: work_then_stop(seed) for seed in range(4))])
    with database.read() as session:
        unfinished = select(func.count()).where(Job.status.in_(["queued", "running"]))
        captions = session.scalars(select(Caption.job_id)).all()
        assert session.scalar(unfinished) == 0
    assert set(Counter(captions).values()) == {1}
