"""What people ask of the tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import event, insert, text, update
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from captioning import finding, forecast, glances, jobs, queries, workers
from captioning.access import EVERYBODY, STRANGER, Caller
from captioning.database import Database, db_now
from captioning.errors import BatchNotFound, ImageNotFound, JobNotFound, NotFound
from captioning.finding import Wanted
from captioning.jobs import JobOptions
from captioning.models import Base, Batch, Caption, Job, JobStatus, Worker, new_id
from tests.factories import MODEL, add_image, add_job, add_jobs, read_job

MADE_UP = ["0" * 32, "", "x", "a\x00b", "\x00" * 32, "'; --", "é" * 32, "A" * 32, "9" * 10_000]


@pytest.mark.parametrize("made_up", MADE_UP, ids=ascii)
@pytest.mark.parametrize(
    ("get", "error"),
    [
        (queries.get_job, JobNotFound),
        (queries.get_batch, BatchNotFound),
        (queries.get_image, ImageNotFound),
    ],
)
def test_what_does_not_exist_is_not_found_whatever_it_is_called(
    database: Database, get: Callable[[Session, str], object], error: type[NotFound], made_up: str
) -> None:
    with database.read() as session, pytest.raises(error):
        get(session, made_up)


@pytest.mark.parametrize("made_up", MADE_UP, ids=ascii)
def test_no_glance_finds_what_does_not_exist(database: Database, made_up: str) -> None:
    with pytest.raises(JobNotFound):
        queries.read_job(database, made_up, EVERYBODY)


@pytest.mark.parametrize("captions", [0, 1, 3])
def test_a_glance_sees_all_that_a_session_does(database: Database, captions: int) -> None:
    with database.write() as session:
        job_id = add_job(session, edited_text="a wall of ours", decorative=True)
        for rank in reversed(range(captions)):
            session.add(
                Caption(
                    job_id=job_id,
                    rank=rank,
                    text=f"{rank}",
                    mean_log_probability=-rank,
                    model_revision="r",
                )
            )
        add_job(session)  # somebody else's captions are not taken for its own
    glanced = queries.read_job(database, job_id, EVERYBODY)
    with database.read() as session:
        read = queries.get_job(session, job_id)
    assert values(glanced) == values(read)
    assert values(glanced.image) == values(read.image)
    assert [values(caption) for caption in glanced.captions] == [
        values(caption) for caption in read.captions
    ]
    assert (glanced.text, glanced.alt) == (read.text, read.alt)


def values(row: Base) -> dict[str, object]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


@pytest.mark.parametrize(
    ("caller", "sees"),
    [
        (EVERYBODY, True),
        (Caller("theirs"), True),
        (Caller("another"), False),
        (Caller(""), False),
        (STRANGER, False),
        (Caller("an admin's", sees_all=True), True),
    ],
)
def test_a_glance_shows_own_jobs_only(database: Database, caller: Caller, sees: bool) -> None:
    (job_id,) = add_jobs(database, 1, owner="theirs")
    if sees:
        assert queries.read_job(database, job_id, caller).id == job_id
    else:
        with pytest.raises(JobNotFound):
            queries.read_job(database, job_id, caller)


def test_a_glance_asks_no_session_and_no_ping(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    queries.read_job(database, job_id, EVERYBODY)
    asked: list[str] = []
    for happened in ("before_cursor_execute", "begin", "checkout"):
        target = database.engine.pool if happened == "checkout" else database.engine
        event.listen(target, happened, lambda *_, name=happened: asked.append(name))
    queries.read_job(database, job_id, EVERYBODY)
    assert asked == []


def test_who_asks_again_is_told_the_same_until_something_changes(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    told = [queries.read_job(database, job_id, EVERYBODY) for _ in range(2)]
    assert told[0] is told[1]
    with database.write() as session:
        jobs.cancel(session, job_id)
    assert queries.read_job(database, job_id, EVERYBODY).status == JobStatus.CANCELLED
    assert told[0].status == JobStatus.QUEUED


def test_glances_at_once_have_a_connection_each_and_keep_it(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    opened: list[object] = []
    event.listen(database._glances._engine, "connect", lambda *_: opened.append(_))
    together = Barrier(4)

    def glance(_: int) -> str:
        together.wait()
        return [queries.read_job(database, job_id, EVERYBODY).id for _ in range(20)][-1]

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(glance, range(4))) == {job_id}
        assert set(pool.map(glance, range(4))) == {job_id}
    assert 1 <= len(opened) <= 4


def test_threads_that_are_the_first_to_ask_keep_their_connections(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both compile the statement: what one of them made is what both go on with."""
    (job_id,) = add_jobs(database, 1)
    opened: list[object] = []
    event.listen(database._glances._engine, "connect", lambda *_: opened.append(_))
    together, compiled = Barrier(2), glances._Prepared

    def compile_together(*statement: Any) -> glances._Prepared:
        made = compiled(*statement)
        together.wait(10)
        return made

    monkeypatch.setattr(glances, "_Prepared", compile_together)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(queries.read_job, database, job_id, EVERYBODY) for _ in range(2)]
        assert {one.result().id for one in asked} == {job_id}
    for _ in range(2):
        database._glances._idle.reverse()  # the one that was used last is taken first
        assert queries.read_job(database, job_id, EVERYBODY).id == job_id
    assert len(opened) == len(database._glances._idle) <= 2


def test_a_glance_for_which_there_is_no_connection_is_asked_as_anything_else(
    database: Database,
) -> None:
    """A server of many threads may not have as many connections to the database."""
    (job_id,) = add_jobs(database, 1)
    pool = database._glances._engine.pool
    assert isinstance(pool, QueuePool)
    held = [pool.connect() for _ in range(15)]  # as many as docs/operations.md counts on
    with pytest.raises(NoneFree):
        pool.connect()
    assert queries.read_job(database, job_id, EVERYBODY).id == job_id
    assert database._glances._idle == []
    for connection in held:
        connection.close()
    assert queries.read_job(database, job_id, EVERYBODY).id == job_id
    assert len(database._glances._idle) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_glance_outlives_a_restart_of_the_database(database: Database) -> None:
    """Of which no connection is told."""
    (job_id,) = add_jobs(database, 1)
    for _ in range(2):
        assert queries.read_job(database, job_id, EVERYBODY).id == job_id
        with database.write() as session:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            session.execute(
                text(f"{others} WHERE pid != pg_backend_pid() AND datname = current_database()")
            )
    assert queries.read_job(database, job_id, EVERYBODY).id == job_id


def test_pages_are_newest_first_and_meet_without_overlap(database: Database) -> None:
    made = add_jobs(database, 7)
    seen: list[str] = []
    while True:
        with database.read() as session:
            page = finding.list_jobs(session, limit=3, before=seen[-1] if seen else None)
        if not page:
            break
        seen += [job.id for job in page]
    assert seen == made[::-1]


def test_lists_are_filtered(database: Database) -> None:
    with database.write() as session:
        batch = Batch(rejected=[])
        session.add(batch)
        session.flush()
        ours = add_job(session, batch_id=batch.id)
        failed = add_job(session, JobStatus.FAILED, batch_id=batch.id)
        add_job(session, JobStatus.FAILED)
    with database.read() as session:
        both = finding.list_jobs(session, Wanted(batch_id=batch.id), limit=10)
        one = finding.list_jobs(session, Wanted({JobStatus.FAILED}, batch.id), limit=10)
        progress = queries.batch_progress(session, batch.id)
    assert [job.id for job in both] == [failed, ours]
    assert [job.id for job in one] == [failed]
    assert progress.by_status == {JobStatus.QUEUED: 1, JobStatus.FAILED: 1}
    assert (progress.total, progress.finished, progress.done) == (2, 1, False)


@pytest.mark.parametrize("made_up", MADE_UP, ids=ascii)
def test_a_made_up_cursor_or_batch_lists_nothing_and_breaks_nothing(
    database: Database, made_up: str
) -> None:
    add_jobs(database, 1)
    with database.read() as session:
        assert list(finding.list_jobs(session, limit=5, before=made_up)) == []
        assert list(finding.list_jobs(session, Wanted(batch_id=made_up), limit=5)) == []


def test_captions_come_best_first(database: Database) -> None:
    (job_id,) = add_jobs(database, 1, status=JobStatus.SUCCEEDED)
    with database.write() as session:
        for rank in (2, 0, 1):
            caption = Caption(
                job_id=job_id, rank=rank, text=f"{rank}", mean_log_probability=-1, model_revision=""
            )
            session.add(caption)
    with database.read() as session:
        assert [c.text for c in queries.get_job(session, job_id).captions] == ["0", "1", "2"]


def test_claimable_is_what_a_worker_could_claim_now(database: Database) -> None:
    with database.write() as session:
        for _ in range(5):
            add_job(session)
        add_job(session, available_at=db_now(60))
        add_job(session, JobStatus.RUNNING)
        add_job(session, model="other")
    with database.read() as session:
        assert queries.count_claimable(session, MODEL, at_most=100) == 5
        assert queries.count_claimable(session, MODEL, at_most=3) == 3
        assert queries.count_claimable(session, "none", at_most=3) == 0


def test_live_workers_were_seen_lately(database: Database) -> None:
    living, silent = new_id(), new_id()
    with database.write() as session:
        for worker_id in (living, silent):
            workers.register(session, worker_id, name="1@host", models=[MODEL])
        long_ago = db_now(-queries.WORKER_SILENT_S - 1)
        session.execute(update(Worker).where(Worker.id == silent).values(seen_at=long_ago))
    with database.read() as session:
        assert [worker.id for worker in queries.live_workers(session)] == [living]


def test_served_models_are_those_of_live_workers(database: Database) -> None:
    silent = new_id()
    with database.write() as session:
        assert queries.served_models(session) == set()
        workers.register(session, new_id(), name="1@host", models=["a", "b"])
        workers.register(session, new_id(), name="2@host", models=["b", "c"])
        workers.register(session, silent, name="3@host", models=["d"])
        long_ago = db_now(-queries.WORKER_SILENT_S - 1)
        session.execute(update(Worker).where(Worker.id == silent).values(seen_at=long_ago))
    with database.read() as session:
        assert queries.served_models(session) == {"a", "b", "c"}


def test_jobs_are_counted_by_status(database: Database) -> None:
    with database.write() as session:
        for status in (JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.FAILED):
            add_job(session, status)
    with database.read() as session:
        counted = queries.count_by_status(session)
    assert counted == {JobStatus.QUEUED: 2, JobStatus.FAILED: 1}


def test_an_empty_batch_is_done(database: Database) -> None:
    with database.read() as session:
        progress = queries.batch_progress(session, new_id())
    assert (progress.total, progress.done) == (0, True)


OPTIONS = JobOptions(MODEL, owner="archive")
MANY = 20_000


def many_wait(database: Database, finished: int = 0) -> str:
    """And some that are older have finished. The last one's id."""
    with database.write() as session:
        image = add_image(session)
        (job,) = jobs.submit(session, [image], OPTIONS, max_attempts=3)
        row = {c.name: getattr(job, c.name) for c in Job.__table__.columns}
        more = [
            {**row, "id": new_id(), "asked": new_id(), "place": place} for place in range(1, MANY)
        ]
        for older in more[:finished]:
            older["status"] = JobStatus.SUCCEEDED
        session.execute(insert(Job), more)
    return str(more[-1]["id"])


def plans(
    database: Database, statements: Sequence[tuple[str, tuple[object, ...]]]
) -> Iterator[str]:
    postgresql = database.engine.dialect.name == "postgresql"
    if postgresql:  # as its autovacuum would; SQLite has only its rules
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    explain = "EXPLAIN" if postgresql else "EXPLAIN QUERY PLAN"
    with database.engine.connect() as connection:
        for statement, parameters in statements:
            yield str(connection.exec_driver_sql(f"{explain} {statement}", parameters).all())


@pytest.mark.slow
def test_the_head_of_a_long_queue_is_read_from_an_index_in_order(database: Database) -> None:
    """By a claim, and by an upload that looks for its place."""
    many_wait(database)
    statements = selects_of(
        database,
        lambda session: jobs.claim(session, MODEL, limit=8, lease_s=60),
        lambda session: jobs.submit(session, [add_image(session)], OPTIONS, max_attempts=3),
    )
    limited = [found for found in statements if "LIMIT" in found[0]]
    (twins,) = (found for found in limited if "source" in found[0])
    heads = [found for found in limited if found != twins]
    assert len(heads) == 3
    for found, plan in zip(limited, plans(database, limited), strict=True):
        if found in heads:
            assert "ix_job_queued_" in plan, plan
        assert ("ix_job_running_asked" in plan) == ("asked = " in found[0]), plan
        assert ("ix_job_answered" in plan) == (found == twins), plan
        assert not re.search("SCAN job|Seq Scan|Sort|TEMP B-TREE", plan), plan


def test_what_finished_last_is_found_however_many_wait(database: Database) -> None:
    job = read_job(database, many_wait(database, finished=MANY // 2))
    statements = selects_of(database, lambda session: forecast.of_job(session, job))
    limited = [found for found in statements if "LIMIT" in found[0]]
    indexes = ("ix_job_queued_place", "ix_job_status_id")
    for index, plan in zip(indexes, plans(database, limited), strict=True):
        assert index in plan, plan
        assert not re.search("SCAN job|Seq Scan|Sort|TEMP B-TREE", plan), plan


def selects_of(
    database: Database, *verbs: Callable[[Session], object]
) -> list[tuple[str, tuple[object, ...]]]:
    """The SELECTs that verbs run, with their parameters."""
    statements: list[tuple[str, tuple[object, ...]]] = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def note(*args: Any) -> None:
        if args[2].startswith("SELECT"):
            statements.append((args[2], args[3]))

    for verb in verbs:
        with database.write() as session:
            verb(session)
    event.remove(database.engine, "before_cursor_execute", note)
    return statements
