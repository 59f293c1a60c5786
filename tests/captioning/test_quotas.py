"""Images by day and key, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, select, update

from captioning import quotas
from captioning.access import Caller, Limits
from captioning.database import Database
from captioning.errors import ImageUnreadable, QuotaExceeded
from captioning.idempotency import Once
from captioning.models import Job, Usage
from captioning.queue import AllRejected, Queue, Upload
from tests.factories import photo


def limited(queue: Queue, images_per_day: int | None, owner: str = "anna") -> Queue:
    return queue.seen_by(Caller(owner, limits=Limits(images_per_day=images_per_day)))


def upload(count: int) -> list[Upload]:
    return [Upload("a.jpg", photo())] * count


def counted(database: Database, owner: str = "anna") -> int:
    with database.read() as session:
        return session.scalar(select(Usage.images).where(Usage.owner == owner)) or 0


def test_a_key_may_hand_in_so_many_and_no_more(queue: Queue) -> None:
    annas = limited(queue, 3)
    annas.submit(photo())
    annas.submit_many(upload(2), annas.options(None, "beam", 1))
    with pytest.raises(QuotaExceeded, match="3 images a day, and has") as refusal:
        annas.submit(photo())
    assert 0 < refusal.value.retry_after_s <= 24 * 3600
    limited(queue, 3, "bert").submit(photo())
    queue.submit(photo())  # a program inside the cluster


def test_an_upload_is_taken_whole_or_not_at_all(queue: Queue) -> None:
    annas = limited(queue, 3)
    annas.submit(photo())
    with pytest.raises(QuotaExceeded, match="2 are left, these are 3"):
        annas.submit_many(upload(3), annas.options(None, "beam", 1))
    with queue.database.read() as session:
        assert len(session.scalars(select(Job.id)).all()) == 1
    assert counted(queue.database) == 1
    annas.submit_many(upload(2), annas.options(None, "beam", 1))


def test_what_is_refused_or_sent_twice_counts_once_or_not(queue: Queue) -> None:
    annas = limited(queue, 1)
    with pytest.raises(ImageUnreadable):
        annas.submit(photo((400, 300))[:800])
    with pytest.raises(AllRejected):
        annas.submit_many([Upload("a", b"")], annas.options(None, "beam", 1))
    assert counted(queue.database) == 0
    once = Once("k1", "fingerprint")
    assert annas.submit(photo(), once=once).id == annas.submit(photo(), once=once).id
    assert counted(queue.database) == 1


def test_what_is_deleted_stays_counted(queue: Queue) -> None:
    annas = limited(queue, 1)
    annas.submit(photo())
    with queue.database.write() as session:
        session.execute(delete(Job))
    with pytest.raises(QuotaExceeded):
        annas.submit(photo())


def test_the_next_day_begins_anew_and_old_days_are_forgotten(queue: Queue) -> None:
    annas = limited(queue, 1)
    annas.submit(photo())
    today = datetime.now(UTC).date()
    with queue.database.write() as session:
        session.execute(update(Usage).values(day=today - timedelta(days=1)))
    annas.submit(photo())
    with queue.database.write() as session:
        quotas.forget_old(session)
        assert len(session.scalars(select(Usage.day)).all()) == 2
        session.execute(update(Usage).where(Usage.day < today).values(day=datetime(2020, 1, 1)))  # noqa: DTZ001
        quotas.forget_old(session)
        assert session.scalars(select(Usage.day)).all() == [today]


def test_of_many_at_once_no_more_get_through(queue: Queue) -> None:
    annas = limited(queue, 3)

    def submit(_: int) -> bool:
        try:
            annas.submit(photo())
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(submit, range(8))) == 3


def test_a_key_without_a_limit_of_its_own_has_that_of_the_settings(queue: Queue) -> None:
    queue.settings = queue.settings.model_copy(update={"images_per_day": 0})
    with pytest.raises(QuotaExceeded):
        limited(queue, None).submit(photo())
    limited(queue, 1).submit(photo())
    queue.submit(photo())
