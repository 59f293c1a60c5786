"""Claims to saved captions, with everything that can go wrong on the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import update

from captioning import jobs
from captioning.database import db_now
from captioning.errors import StorageUnavailable
from captioning.logs import request_id
from captioning.models import Job, JobStatus
from captioning.queue import Queue
from clipcap import Captioner
from tests.worker.conftest import COLOURS, MODEL, Sabotaged, photo, read, refuse_colours
from worker import station as station_module
from worker.station import BROKEN_EXIT_CODE, Station


def test_it_captions_everything_that_is_queued(queue: Queue, station: Station) -> None:
    handles = [queue.submit(photo(colour)) for colour in COLOURS]

    assert station.work() == len(COLOURS)

    for handle in handles:
        job = read(queue, handle.id)
        assert job.status == JobStatus.SUCCEEDED
        assert job.attempts == 1
        assert len(job.captions) == 1
        assert job.captions[0].text
        assert job.captions[0].mean_log_probability < 0
        assert job.captions[0].model_revision == station.captioners[MODEL].revision
    assert station.tokens == frozenset()


def test_its_log_lines_name_the_jobs_and_the_requests_that_made_them(
    queue: Queue, station: Station, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker.station")
    lost = queue.submit(photo("red"))
    queue.storage.delete([read(queue, lost.id).image.key])
    token = request_id.set("edge-1")
    kept = queue.submit(photo("blue"))
    request_id.reset(token)

    station.work()

    failed, captioned = (vars(line) for line in caplog.records if line.name == "worker.station")
    assert (failed["job_id"], failed["request_id"]) == (lost.id, None)
    assert captioned["job_ids"] == [lost.id, kept.id]
    assert captioned["request_ids"] == ["edge-1"]


def test_a_caption_is_the_one_that_the_captioner_gives_alone(
    queue: Queue, station: Station, captioner: Captioner
) -> None:
    handles = {colour: queue.submit(photo(colour)) for colour in COLOURS[:3]}
    station.work()

    lone = Station(queue, {MODEL: captioner})
    for colour, handle in handles.items():
        alone = queue.submit(photo(colour), owner="another")
        lone.work()
        assert alone.captions == handle.captions
    lone.close()


def test_a_model_that_ranks_by_the_embedding_is_given_it(
    queue: Queue, expecting_bundle: Path
) -> None:
    with Captioner.load(expecting_bundle) as captioner:
        station = Station(queue, {MODEL: captioner})
        handles = {colour: queue.submit(photo(colour), num_captions=3) for colour in COLOURS[:3]}
        station.work()
        station.close()
        for colour, handle in handles.items():
            options = captioner.defaults.override(num_captions=3)
            [found] = captioner.caption([Image.new("RGB", (40, 30), colour)], options)
            job = read(queue, handle.id)
            assert job.status == JobStatus.SUCCEEDED
            assert [caption.text for caption in job.captions] == [one.text for one in found]


def test_each_job_of_a_micro_batch_gets_its_own_options(queue: Queue, station: Station) -> None:
    greedy = queue.submit(photo("red"), decoding="greedy")
    three = queue.submit(photo("red"), num_captions=3)
    one = queue.submit(photo("red"))
    short = queue.submit(photo("red"), max_words=3)

    station.work()

    (caption,) = short.captions
    assert len(caption.split()) == 3
    assert [len(job.captions) for job in (greedy, three, one)] == [1, 3, 1]
    assert len(set(three.captions)) == 3
    assert three.captions[0] == one.captions[0]


def test_a_bad_image_fails_alone(queue: Queue, captioner: Captioner) -> None:
    def refuse_white(pixels: torch.Tensor) -> None:
        if (pixels.flatten(1).min(dim=1).values > 0.9).any():
            raise RuntimeError("cannot stand white")

    station = Station(queue, {MODEL: Sabotaged(captioner, refuse_white)})
    handles = {colour: queue.submit(photo(colour)) for colour in ("red", "white", "blue")}
    station.work()
    station.close()

    assert handles["red"].status == JobStatus.SUCCEEDED
    assert handles["blue"].status == JobStatus.SUCCEEDED
    white = read(queue, handles["white"].id)
    assert white.status == JobStatus.QUEUED  # it may have been a passing fault: tried again later
    assert white.error_code == "model_failed"
    assert white.error_message == "The model failed: RuntimeError."


def test_a_job_that_keeps_failing_fails_for_good(queue: Queue, captioner: Captioner) -> None:
    station = Station(queue, {MODEL: Sabotaged(captioner, refuse_colours)})
    handle = queue.submit(photo("red"))
    for _ in range(queue.settings.max_attempts):
        with queue.database.write() as session:
            session.execute(update(Job).values(available_at=db_now(-1)))
        station.work()
    station.close()

    job = read(queue, handle.id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "model_failed")
    assert job.attempts == queue.settings.max_attempts


@pytest.mark.parametrize(
    "broken",
    [{"mean_log_probability": float("nan")}, {"text": "a \0 dog"}, {"text": "a \udcff dog"}],
)
def test_a_caption_that_no_database_can_keep_fails_alone(
    queue: Queue, captioner: Captioner, broken: dict[str, Any]
) -> None:
    class BreaksTheSecond(Sabotaged):
        def decode(self, prefixes: torch.Tensor, *options: Any, **more: Any) -> Sequence[Any]:
            found = list(captioner.decode(prefixes, *options, **more))
            if len(found) > 1:
                found[1] = [replace(caption, **broken) for caption in found[1]]
            return found

    station = Station(queue, {MODEL: BreaksTheSecond(captioner, lambda _: None)})
    handles = [queue.submit(photo(colour)) for colour in COLOURS[:3]]
    station.work()
    station.close()

    job = read(queue, handles[1].id)
    assert (job.status, job.error_code) == (JobStatus.QUEUED, "caption_invalid")
    assert {handles[0].status, handles[2].status} == {JobStatus.SUCCEEDED}


def test_out_of_memory_halves_the_micro_batch(queue: Queue, captioner: Captioner) -> None:
    sizes = []

    def small_device(pixels: torch.Tensor) -> None:
        sizes.append(len(pixels))
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    station = Station(queue, {MODEL: Sabotaged(captioner, small_device)})
    handles = [queue.submit(photo(colour)) for colour in COLOURS[:4]]
    station.work()
    station.close()

    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert {handle.status for handle in handles} == {JobStatus.SUCCEEDED}


def test_a_missing_image_fails_at_once(queue: Queue, station: Station) -> None:
    gone, fine = queue.submit(photo("red")), queue.submit(photo("blue"))
    queue.storage.delete([read(queue, gone.id).image.key])

    station.work()

    job = read(queue, gone.id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "image_missing")
    assert fine.status == JobStatus.SUCCEEDED


def test_damaged_bytes_in_the_store_fail_at_once(queue: Queue, station: Station) -> None:
    handle = queue.submit(photo("red"))
    queue.storage.put(read(queue, handle.id).image.key, b"not an image any more")

    station.work()

    assert read(queue, handle.id).error_code == "image_unreadable"


def test_a_stored_image_that_is_cut_off_is_unreadable(queue: Queue, station: Station) -> None:
    handle = queue.submit(photo("red"))
    key = read(queue, handle.id).image.key
    queue.storage.put(key, queue.storage.get(key)[:-100])

    station.work()

    job = read(queue, handle.id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "image_unreadable")


def test_a_device_that_refuses_everything_ends_the_process_and_not_the_queue(
    queue: Queue, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would fail all that waits, faster than other workers can caption it."""

    def refuse(_: torch.Tensor) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def exit_(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(station_module.os, "_exit", exit_)
    station = Station(queue, {MODEL: Sabotaged(captioner, refuse)})
    handles = [queue.submit(photo(colour)) for colour in COLOURS[:6]]
    with pytest.raises(SystemExit) as ended:
        station.work()
    station.close()

    assert ended.value.code == BROKEN_EXIT_CODE
    found = [read(queue, handle.id) for handle in handles]
    assert {job.status for job in found} == {JobStatus.QUEUED}
    assert [job.attempts for job in found] == [1, 1, 1, 1, 0, 0]


def test_a_store_that_is_away_costs_no_attempt(
    queue: Queue, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(key: str) -> bytes:
        raise StorageUnavailable from OSError("connection refused")

    monkeypatch.setattr(station_module, "AWAY_PAUSE_S", 0)
    handle = queue.submit(photo("red"))
    with monkeypatch.context() as patch:
        patch.setattr(queue.storage, "get", away)
        patch.setattr(queue.storage, "is_away", lambda: True)
        for _ in range(2 * queue.settings.max_attempts):
            station.work()
            job = read(queue, handle.id)
            assert (job.status, job.attempts, job.error_code) == (
                JobStatus.QUEUED, 0, "unavailable",
            )  # fmt: skip
            assert job.available_at > job.created_at  # not at once
            with queue.database.write() as session:
                session.execute(update(Job).values(available_at=db_now()))
    station.work()
    assert handle.status == JobStatus.SUCCEEDED


def test_one_image_that_the_store_does_not_give_uses_up_its_attempts(
    queue: Queue, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where permissions are wrong: it would be waited for, for ever."""
    bad, good = queue.submit(photo("red")), queue.submit(photo("blue"))
    get, forbidden = queue.storage.get, read(queue, bad.id).image.key

    def refuse(key: str) -> bytes:
        if key == forbidden:
            raise StorageUnavailable from PermissionError(key)
        return get(key)

    monkeypatch.setattr(queue.storage, "get", refuse)
    for _ in range(queue.settings.max_attempts):
        station.work()
        with queue.database.write() as session:
            session.execute(update(Job).values(available_at=db_now()))
    assert good.status == JobStatus.SUCCEEDED
    job = read(queue, bad.id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "unavailable")


def test_stopping_finishes_the_batch_in_hand_and_gives_back_the_rest(
    queue: Queue, captioner: Captioner
) -> None:
    in_model, go_on = threading.Event(), threading.Event()

    def hold(_: torch.Tensor) -> None:
        in_model.set()
        assert go_on.wait(30)

    station = Station(queue, {MODEL: Sabotaged(captioner, hold)})
    first = [queue.submit(photo(colour)) for colour in COLOURS[:4]]
    holder = threading.Thread(target=station.work)
    holder.start()
    assert in_model.wait(30)
    second = [queue.submit(photo(colour)) for colour in COLOURS[4:6]]
    waiter = threading.Thread(target=station.work)
    waiter.start()
    while len(station.tokens) < 2:
        threading.Event().wait(0.01)

    station.stop()
    go_on.set()
    holder.join(30)
    waiter.join(30)
    station.close()

    assert {handle.status for handle in first} == {JobStatus.SUCCEEDED}
    for handle in second:
        job = read(queue, handle.id)
        assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


def test_a_worker_whose_lease_ran_out_saves_nothing(queue: Queue, captioner: Captioner) -> None:
    handle = queue.submit(photo("red"))
    captions_after_losing = []

    def lose_the_first_lease(_: torch.Tensor) -> None:
        job = read(queue, handle.id)
        if job.attempts == 1:
            with queue.database.write() as session:
                session.execute(update(Job).values(lease_expires_at=db_now(-1)))
                assert jobs.expire_leases(session) == ({handle.id}, set())
        else:
            captions_after_losing.append(handle.captions)

    station = Station(queue, {MODEL: Sabotaged(captioner, lose_the_first_lease)})
    station.work()
    station.close()

    assert captions_after_losing == [[]]
    job = read(queue, handle.id)
    assert (job.status, job.attempts, len(job.captions)) == (JobStatus.SUCCEEDED, 2, 1)


def test_models_take_turns(queue: Queue, captioner: Captioner) -> None:
    order = []

    def note(name: str) -> Sabotaged:
        return Sabotaged(captioner, lambda _: order.append(name))

    settings = queue.settings.model_copy(update={"models": {"a": "", "b": ""}, "batch_size": 2})
    two = Queue(settings)
    for colour in COLOURS[:4]:
        two.submit(photo(colour), model="a")
        two.submit(photo(colour), model="b")
    station = Station(two, {"a": note("a"), "b": note("b")})
    station.work()
    station.close()
    two.close()

    assert order == ["a", "b", "a", "b"]


def test_cancelling_while_the_model_runs_saves_nothing(queue: Queue, captioner: Captioner) -> None:
    handle = queue.submit(photo("red"))

    def cancel(_: torch.Tensor) -> None:
        with queue.database.write() as session:
            jobs.cancel(session, handle.id)

    station = Station(queue, {MODEL: Sabotaged(captioner, cancel)})
    station.work()
    station.close()

    assert handle.status == JobStatus.CANCELLED
    assert handle.captions == []
