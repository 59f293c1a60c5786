"""What the sweeper puts right, and that of many at a time one sweeps."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import select, update

from captioning import jobs, workers
from captioning.broker import queue_name
from captioning.database import Database, db_now
from captioning.errors import StorageUnavailable, UploadTooSlow
from captioning.models import Image, Job, JobStatus, Turn, Worker, new_id
from captioning.queue import Queue
from captioning.sweeper import ABANDONED_AFTER_S, ABANDONED_PER_SWEEP, SweepReport, sweep, tidy
from tests.factories import MODEL, add_image, add_job, add_jobs, photo, read_job
from tests.servers import Valkey


def rings(valkey: Valkey, model: str = MODEL) -> int:
    with valkey.client as client:
        return int(client.llen(queue_name(model)))  # type: ignore[arg-type]


def sweep_now(queue: Queue) -> SweepReport:
    with queue.database.write() as session:
        session.execute(update(Turn).values(next_at=db_now(-1)))
    report = sweep(queue)
    assert report is not None
    return report


# --- turns --------------------------------------------------------------------------------


def test_of_many_at_a_time_one_sweeps(queue: Queue) -> None:
    line = threading.Barrier(8)
    reports: list[SweepReport | None] = []

    def take_part() -> None:
        line.wait()
        reports.append(sweep(queue))

    threads = [threading.Thread(target=take_part) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 8
    assert sum(report is not None for report in reports) == 1


def test_the_next_turn_comes_after_the_period(queue: Queue) -> None:
    assert sweep(queue) is not None
    assert sweep(queue) is None
    with queue.database.write() as session:
        session.execute(update(Turn).values(next_at=db_now(-0.001)))
    assert sweep(queue) is not None


def test_a_clock_that_was_set_back_does_not_stop_the_sweeper(queue: Queue) -> None:
    """The last sweep lies in what is now the future, the next one a year ahead."""
    with queue.database.write() as session:
        session.execute(update(Turn).values(next_at=db_now(365 * 86_400)))
    assert sweep(queue) is not None
    assert sweep(queue) is None


# --- jobs ---------------------------------------------------------------------------------


def test_jobs_of_a_silent_worker_are_queued_again_and_rung_for(
    queue: Queue, valkey: Valkey
) -> None:
    silent = add_jobs(queue.database, 3)
    with queue.database.write() as session:
        assert jobs.claim(session, MODEL, limit=4, lease_s=-1)
    report = sweep_now(queue)
    assert report.queued_again == set(silent)
    assert report.rung == {MODEL: 1}
    assert rings(valkey) == 1


def test_a_job_that_used_up_its_attempts_is_crashed_and_not_rung_for(
    queue: Queue, valkey: Valkey
) -> None:
    (poison,) = add_jobs(queue.database, 1, max_attempts=1)
    with queue.database.write() as session:
        assert jobs.claim(session, MODEL, limit=4, lease_s=-1)
    report = sweep_now(queue)
    assert (report.crashed, report.queued_again, report.rung) == ({poison}, set(), {})
    assert read_job(queue.database, poison).error_code == "crashed"
    assert rings(valkey) == 0


def test_a_lost_doorbell_is_rung_again_once_for_each_micro_batch(
    queue: Queue, valkey: Valkey
) -> None:
    add_jobs(queue.database, 9)  # micro-batches of 4
    assert sweep_now(queue).rung == {MODEL: 3}
    assert rings(valkey) == 3


def test_nothing_waits_nothing_rings(queue: Queue, valkey: Valkey) -> None:
    with queue.database.write() as session:
        add_job(session, available_at=db_now(3600))
        for status in set(JobStatus) - {JobStatus.QUEUED}:
            add_job(session, status)
        add_job(session, model="no longer on offer")
    assert sweep_now(queue).rung == {}
    assert rings(valkey) == 0


def test_a_sweep_without_a_broker_still_puts_jobs_back(queue: Queue, settings: object) -> None:
    away = queue.settings.model_copy(update={"broker_url": "redis+socket:///nowhere.sock"})
    deaf = Queue(away)
    (job_id,) = add_jobs(deaf.database, 1)
    with deaf.database.write() as session:
        assert jobs.claim(session, MODEL, limit=4, lease_s=-1)
    assert sweep_now(deaf).queued_again == {job_id}
    deaf.close()


# --- images -------------------------------------------------------------------------------


def abandon(queue: Queue, age_s: float) -> Image:
    """An upload that died after it had written its bytes."""
    with queue.database.write() as session:
        image = add_image(session, stored_at=None, created_at=db_now(-age_s))
    queue.storage.put(image.key, b"x")
    queue.storage.put(image.thumbnail_key, b"x")
    return image


def files(queue: Queue) -> list[str]:
    folder = Path(queue.settings.data_dir) / "storage"
    return sorted(path.stem for path in folder.rglob("*.jpg"))


def images(queue: Queue) -> list[str]:
    with queue.database.read() as session:
        return list(session.scalars(select(Image.id).order_by(Image.id)))


def test_abandoned_images_go_with_their_bytes_and_others_stay(queue: Queue) -> None:
    abandon(queue, ABANDONED_AFTER_S + 60)
    young = abandon(queue, ABANDONED_AFTER_S - 60).id
    kept = queue.submit(photo()).read().image_id
    assert sweep_now(queue).images_removed == 1
    assert images(queue) == sorted([young, kept])
    assert files(queue) == sorted([young, young, kept, kept])


def test_abandoned_images_without_bytes_go_too(queue: Queue) -> None:
    queue.storage.put("another", b"x")
    with queue.database.write() as session:
        add_image(session, stored_at=None, created_at=db_now(-ABANDONED_AFTER_S - 1))
    assert sweep_now(queue).images_removed == 1
    assert images(queue) == []


def test_many_abandoned_images_take_several_sweeps(queue: Queue) -> None:
    queue.storage.put("another", b"x")
    with queue.database.write() as session:
        for _ in range(ABANDONED_PER_SWEEP + 3):
            add_image(session, stored_at=None, created_at=db_now(-2 * ABANDONED_AFTER_S))
    assert [sweep_now(queue).images_removed for _ in range(3)] == [ABANDONED_PER_SWEEP, 3, 0]


def test_a_store_that_is_away_keeps_the_rows_for_another_sweep(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = abandon(queue, 2 * ABANDONED_AFTER_S)

    def fail(keys: object) -> None:
        raise StorageUnavailable

    with monkeypatch.context() as away:
        away.setattr(queue.storage, "delete", fail)
        assert sweep_now(queue).images_removed == 0
    assert images(queue) == [image.id]
    assert sweep_now(queue).images_removed == 1
    assert files(queue) == []


def test_an_image_that_cannot_be_removed_stands_in_no_others_way(queue: Queue) -> None:
    stubborn = abandon(queue, 2 * ABANDONED_AFTER_S)
    for _ in range(3):
        abandon(queue, 2 * ABANDONED_AFTER_S)
    queue.storage.delete([stubborn.key])
    in_the_way = Path(queue.settings.data_dir) / "storage" / stubborn.key
    (in_the_way / "inside").mkdir(parents=True)
    sweep_now(queue)  # what it did beside that is reported
    assert images(queue) == [stubborn.id]
    (in_the_way / "inside").rmdir()
    in_the_way.rmdir()
    assert sweep_now(queue).images_removed == 1
    assert files(queue) == []


def test_a_store_that_is_away_is_not_asked_for_every_image(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(keys: object) -> None:
        asked.append(keys)
        raise StorageUnavailable

    for _ in range(10):
        abandon(queue, 2 * ABANDONED_AFTER_S)
    monkeypatch.setattr(queue.storage, "delete", fail)
    sweep_now(queue)
    assert len(asked) == 3
    assert len(images(queue)) == 10


@pytest.mark.parametrize("swept", [False, True])
def test_an_upload_that_stood_still_for_too_long_becomes_no_job(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, swept: bool
) -> None:
    """A laptop goes to sleep between an upload's bytes and its jobs; another worker may have
    swept the upload away meanwhile."""
    put_all = queue.storage.put_all

    def put_and_sleep(objects: Mapping[str, bytes]) -> None:
        put_all(objects)
        with queue.database.write() as session:
            session.execute(update(Image).values(created_at=db_now(-ABANDONED_AFTER_S - 1)))
        if swept:
            sweep_now(queue)

    monkeypatch.setattr(queue.storage, "put_all", put_and_sleep)
    with pytest.raises(UploadTooSlow):
        queue.submit(photo())
    assert images(queue) == []
    assert files(queue) == []


# --- the register of workers --------------------------------------------------------------


def test_dead_workers_are_forgotten_and_living_ones_kept(queue: Queue) -> None:
    living, dead = new_id(), new_id()
    with queue.database.write() as session:
        for worker_id in (living, dead):
            workers.register(session, worker_id, name="1@host", models=[MODEL])
        gone = db_now(-workers.FORGET_AFTER_S - 1)
        session.execute(update(Worker).where(Worker.id == dead).values(seen_at=gone))
    tidy(queue)
    with queue.database.write() as session:
        assert list(session.scalars(select(Worker.id))) == [living]
        assert workers.beat(session, living)
        assert not workers.beat(session, dead)
        workers.deregister(session, living)
        assert not workers.beat(session, living)


def test_a_beat_is_what_keeps_a_worker(database: Database) -> None:
    worker_id = new_id()
    with database.write() as session:
        workers.register(session, worker_id, name="1@host", models=["a", "b"])
        session.execute(update(Worker).values(seen_at=db_now(-workers.FORGET_AFTER_S - 1)))
        assert workers.beat(session, worker_id)
        workers.forget_dead(session)
    with database.read() as session:
        worker = session.get_one(Worker, worker_id)
    assert worker.models == ["a", "b"]


def test_the_workers_of_one_machine_are_forgotten_and_no_others(database: Database) -> None:
    names = ["1@box", "2@box", "3@big-box", "4@b_x", "5@boxes"]
    with database.write() as session:
        for name in names:
            workers.register(session, new_id(), name=name, models=[MODEL])
        workers.forget_host(session, "box")
        workers.forget_host(session, "b_x")
        workers.forget_host(session, "%")
    with database.read() as session:
        left = session.scalars(select(Worker.name).order_by(Worker.name)).all()
    assert left == ["3@big-box", "5@boxes"]


def test_the_jobs_of_one_model_are_not_swept_into_another(queue: Queue) -> None:
    with queue.database.write() as session:
        ours = add_job(session)
        theirs = add_job(session, model="other")
        for model in (MODEL, "other"):
            jobs.claim(session, model, limit=1, lease_s=-1)
    assert sweep_now(queue).queued_again == {ours, theirs}
    with queue.database.read() as session:
        models = {job.id: job.model for job in session.scalars(select(Job))}
    assert models == {ours: MODEL, theirs: "other"}
