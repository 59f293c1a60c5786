"""Jobs taken away for good, on both databases: nothing of them is left, and nothing else goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from captioning import jobs, queries, removal, webhooks
from captioning.access import Caller
from captioning.database import Database
from captioning.errors import BatchNotFound, ImageNotFound, JobNotFound, StorageUnavailable
from captioning.idempotency import Once
from captioning.jobs import CaptionText, Claim
from captioning.models import (
    Base,
    Batch,
    Caption,
    DeliveryStatus,
    IdempotencyKey,
    Image,
    Job,
    JobStatus,
    WebhookDelivery,
)
from captioning.queue import Queue, Upload
from captioning.storage import Storage
from captioning.webhooks import Ended, announce
from tests.factories import MODEL, add_job, photo, read_job

WEBHOOK = "https://receiver.example/"
PHOTOS = [Upload(f"{i}.jpg", photo(colour=(40 * i, 9, 9))) for i in range(3)]


@pytest.fixture
def storage_folder(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def rows(database: Database, *tables: type[Base]) -> list[int]:
    with database.read() as session:
        return [session.scalar(select(func.count()).select_from(each)) or 0 for each in tables]


def files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def claim(queue: Queue) -> Claim:
    with queue.database.write() as session:
        held = jobs.claim(session, MODEL, limit=10, lease_s=60)
    assert held is not None
    return held


def save(queue: Queue, held: Claim) -> set[str]:
    captions = {job.id: [CaptionText("a wall", -1)] for job in held.jobs}
    with queue.database.write() as session:
        return jobs.succeed(session, held.token, captions, model_revision="r")


def test_nothing_of_a_job_is_left(queue: Queue, storage_folder: Path) -> None:
    once = Once("key", "request")
    job = queue.submit(photo(), webhook_url=WEBHOOK, once=once)
    save(queue, claim(queue))
    everything = (Job, Caption, Image, WebhookDelivery, IdempotencyKey)
    assert rows(queue.database, *everything) == [1] * 5
    assert files(storage_folder) == 2
    assert queue.delete([job.id]) == 1
    assert rows(queue.database, *everything) == [0] * 5
    assert files(storage_folder) == 0
    with pytest.raises(JobNotFound):
        job.read()
    assert queue.delete([job.id]) == 0
    assert queue.submit(photo(), once=once).id != job.id


def test_a_completion_that_comes_later_finds_nothing_and_loses_nothing(queue: Queue) -> None:
    submission = queue.submit_many(PHOTOS, queue.options(None, "beam", 1))
    held = claim(queue)
    gone, *left = submission.job_ids
    queue.delete([gone])
    with queue.database.write() as session:
        assert jobs.fail(session, held.token, gone, code="bad", message="Bad.") is None
        assert jobs.fail_or_retry(session, held.token, gone, code="bad", message="Bad.") is None
    assert save(queue, held) == set(left)
    assert rows(queue.database, Job, Caption, Image) == [2, 2, 2]


def test_an_image_stays_for_as_long_as_a_job_has_it(queue: Queue, storage_folder: Path) -> None:
    first = queue.submit(photo(), owner="anna")
    image_id = first.read().image_id
    with queue.database.write() as session:
        second = add_job(session, image_id=image_id, owner="bert")
    queue.delete([first.id])
    assert read_job(queue.database, second).image.stored_at is not None
    assert files(storage_folder) == 2
    queue.delete([second])
    assert rows(queue.database, Image) == [0]
    assert files(storage_folder) == 0


def test_a_batch_goes_with_its_last_job(queue: Queue) -> None:
    options = queue.options(None, "beam", 1, webhook_url=WEBHOOK)
    submission = queue.submit_many(PHOTOS, options)
    queue.delete(submission.job_ids[:2])
    assert rows(queue.database, Batch, Job, WebhookDelivery) == [1, 1, 1]
    queue.delete(submission.job_ids[2:])
    assert rows(queue.database, Batch, Job, WebhookDelivery) == [0, 0, 0]


def test_a_batch_is_deleted_whole_and_no_other(queue: Queue, storage_folder: Path) -> None:
    first, second = (queue.submit_many(PHOTOS, queue.options(None, "beam", 1)) for _ in range(2))
    queue.delete_batch(first.batch_id)
    assert rows(queue.database, Batch, Job, Image) == [1, 3, 3]
    assert files(storage_folder) == 6
    with queue.database.read() as session:
        assert queries.batch_progress(session, second.batch_id).total == 3
    with pytest.raises(BatchNotFound):
        queue.delete_batch(first.batch_id)


def test_a_batch_that_no_job_was_left_of_can_be_deleted(queue: Queue) -> None:
    with queue.database.write() as session:
        batch = Batch(rejected=[])
        session.add(batch)
    queue.delete_batch(batch.id)
    assert rows(queue.database, Batch) == [0]


def test_what_is_somebody_elses_is_not_there_to_be_deleted(queue: Queue) -> None:
    anna, bert = (queue.seen_by(Caller(name)) for name in ("anna", "bert"))
    submission = anna.submit_many(PHOTOS, anna.options(None, "beam", 1))
    assert bert.delete(submission.job_ids) == 0
    with pytest.raises(BatchNotFound):
        bert.delete_batch(submission.batch_id)
    assert anna.delete(submission.job_ids) == 3


@pytest.mark.parametrize("made_up", [[], ["0" * 32], ["\0", "", "x"]], ids=ascii)
def test_what_was_never_there_is_not_counted(queue: Queue, made_up: list[str]) -> None:
    assert queue.delete(made_up) == 0


def test_bytes_that_cannot_be_removed_are_left_to_the_sweeper(
    queue: Queue, storage_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = queue.submit(photo())
    image_id = job.read().image_id

    def away(self: Storage, keys: object) -> None:
        raise StorageUnavailable("It is away.")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "delete", away)
        assert queue.delete([job.id]) == 1
    assert (rows(queue.database, Job, Image), files(storage_folder)) == ([0, 1], 2)
    with queue.database.read() as session:
        with pytest.raises(ImageNotFound):  # nobody is shown what has been deleted
            queries.get_image(session, image_id)
        left = queries.abandoned_images(session, older_than_s=-1, limit=9)
    queue.discard(left)
    assert (rows(queue.database, Job, Image), files(storage_folder)) == ([0, 0], 0)


def test_two_who_delete_the_last_two_jobs_of_an_image_leave_no_image(
    queue: Queue, storage_folder: Path
) -> None:
    for _ in range(5):
        first = queue.submit(photo())
        with queue.database.write() as session:
            second = add_job(session, image_id=first.read().image_id)
        start = Barrier(2)

        def delete(job_id: str, start: Barrier = start) -> int:
            start.wait()
            return queue.delete([job_id])

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(delete, [first.id, second])) == [1, 1]
    assert (rows(queue.database, Job, Image), files(storage_folder)) == ([0, 0], 0)


def test_a_row_that_is_being_changed_is_passed_over_and_then_waited_for(queue: Queue) -> None:
    """Only PostgreSQL has locks of rows; on SQLite writers come one after the other."""
    submission = queue.submit_many(PHOTOS, queue.options(None, "beam", 1))
    if queue.database.engine.dialect.name == "postgresql":
        with queue.database.write() as other:
            jobs.cancel(other, submission.job_ids[0])
            with queue.database.write() as session:
                removed = removal.remove(session, submission.job_ids, patiently=False)
            assert removed.job_ids == set(submission.job_ids[1:])
            assert len(removed.images) == 2
        assert read_job(queue.database, submission.job_ids[0]).status == JobStatus.CANCELLED
        queue.discard(removed.images)
    queue.delete(submission.job_ids)
    assert rows(queue.database, Job, Image, Batch) == [0, 0, 0]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_deletion_waits_for_the_end_of_a_job_that_was_retried(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end has the job's row, and refers to its batch once more: the message of the first
    time has been sent. The deletion has the batch's row and wants the job's."""
    options = queue.options(None, "beam", 1, webhook_url=WEBHOOK)
    (job_id,) = queue.submit_many(PHOTOS[:1], options).job_ids
    with queue.database.write() as session:
        jobs.cancel(session, job_id)
        session.execute(update(WebhookDelivery).values(status=DeliveryStatus.DELIVERED))
        jobs.retry(session, job_id)
    held = claim(queue)
    ending = Event()

    def announce_late(session: Session, ended: Sequence[Ended]) -> None:
        ending.set()
        wait_for_one_who_waits(queue.database)
        announce(session, ended)

    monkeypatch.setattr(webhooks, "announce", announce_late)
    with ThreadPoolExecutor(2) as pool:
        saving = pool.submit(save, queue, held)
        assert ending.wait(30)
        deleting = pool.submit(queue.delete, [job_id])
        assert saving.result(timeout=60) == {job_id}
        assert deleting.result(timeout=60) == 1
    assert rows(queue.database, Job, Image, Batch, WebhookDelivery) == [0, 0, 0, 0]


def wait_for_one_who_waits(database: Database) -> None:
    """Until a transaction waits for the row of another."""
    deadline = time.monotonic() + 30
    with database.engine.connect() as connection:
        while not connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_deletion_amid_workers_that_save_breaks_and_leaves_nothing(
    queue: Queue, storage_folder: Path
) -> None:
    kept, *doomed = (queue.submit_many(PHOTOS, queue.options(None, "beam", 1)) for _ in range(6))
    start = Barrier(5)

    def work(_: object) -> None:
        start.wait()
        while True:
            with queue.database.write() as session:
                held = jobs.claim(session, MODEL, limit=4, lease_s=60)
            if held is None:
                return
            save(queue, held)

    def delete(batches: list[str]) -> None:
        start.wait()
        for batch_id in batches:
            queue.delete_batch(batch_id)

    ids = [each.batch_id for each in doomed]
    with ThreadPoolExecutor(5) as pool:
        done = [*map(lambda n: pool.submit(work, n), range(3))]
        done += [pool.submit(delete, part) for part in (ids[::2], ids[1::2])]
        for each in done:
            each.result(timeout=60)
    with queue.database.read() as session:
        progress = queries.batch_progress(session, kept.batch_id)
    assert progress.by_status == {JobStatus.SUCCEEDED: 3}
    assert rows(queue.database, Batch, Job, Caption, Image) == [1, 3, 3, 3]
    assert files(storage_folder) == 6
