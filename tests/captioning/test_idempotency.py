"""What is submitted again under its key is carried out once, whenever the second one comes."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest
from sqlalchemy import func, select, update

from captioning import idempotency
from captioning.database import db_now
from captioning.errors import IdempotencyKeyReused, UnsupportedImageType
from captioning.idempotency import KEPT_S, Once
from captioning.jobs import JobOptions
from captioning.models import IdempotencyKey, Image, Job
from captioning.queue import Queue, Upload
from captioning.sweeper import tidy
from tests.factories import MODEL, photo

ONCE = Once("a key", "0" * 64)


def count(queue: Queue, table: type) -> int:
    with queue.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def age_keys(queue: Queue) -> None:
    with queue.database.write() as session:
        session.execute(update(IdempotencyKey).values(created_at=db_now(-KEPT_S - 1)))


def test_the_second_gets_the_first_ones_job(queue: Queue) -> None:
    first, second = (queue.submit(photo(), once=ONCE) for _ in range(2))
    assert first.id == second.id
    assert (count(queue, Job), count(queue, Image)) == (1, 1)


def test_the_second_gets_the_first_ones_batch(queue: Queue) -> None:
    files = [Upload("a.jpg", photo()), Upload("b.txt", b"a text"), Upload("c.jpg", photo())]
    first, second = (queue.submit_many(files, JobOptions(MODEL), once=ONCE) for _ in range(2))
    assert first == second
    assert [rejection.index for rejection in first.rejected] == [1]
    assert (count(queue, Job), count(queue, Image)) == (2, 2)


def test_another_request_under_the_same_key_is_refused(queue: Queue) -> None:
    queue.submit(photo(), once=ONCE)
    with pytest.raises(IdempotencyKeyReused):
        queue.submit(photo(), once=Once(ONCE.key, "1" * 64))
    assert count(queue, Job) == 1


def test_what_failed_is_tried_again(queue: Queue) -> None:
    with pytest.raises(UnsupportedImageType):
        queue.submit(b"a text", once=ONCE)
    queue.submit(photo(), once=ONCE)
    assert count(queue, Job) == 1


def test_of_many_at_once_one_is_carried_out(queue: Queue) -> None:
    """The barrier lets all of them look before any of them stores."""
    at_once, made = Barrier(4), set()
    recall = idempotency.recall

    def slow_recall(*arguments: object) -> str | None:
        found = recall(*arguments)  # type: ignore[arg-type]
        if found is None:
            at_once.wait(30)
        return found

    def submit() -> None:
        made.add(queue.submit(photo(), once=ONCE).id)

    threads = [Thread(target=submit) for _ in range(at_once.parties)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(idempotency, "recall", slow_recall)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(made) == 1
    assert (count(queue, Job), count(queue, Image)) == (1, 1)


def test_a_key_past_its_time_is_free(queue: Queue) -> None:
    first = queue.submit(photo(), once=ONCE)
    age_keys(queue)
    assert queue.submit(photo(), once=Once(ONCE.key, "1" * 64)).id != first.id
    assert count(queue, IdempotencyKey) == 1


def test_the_sweeper_forgets_old_keys(queue: Queue) -> None:
    queue.submit(photo(), once=ONCE)
    age_keys(queue)
    queue.submit(photo(), once=Once("another", "0" * 64))
    tidy(queue)
    assert count(queue, IdempotencyKey) == 1
