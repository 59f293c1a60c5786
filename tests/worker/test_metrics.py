"""What a worker counts, and that it counts what happened."""

from __future__ import annotations

import httpx
import pytest
import torch
from sqlalchemy import update

from captioning import metrics
from captioning.database import db_now
from captioning.errors import SettingsError
from captioning.models import Job
from captioning.queue import Queue
from captioning.sweeper import SweepReport
from clipcap import Captioner
from tests.acceptance.service import free_port
from tests.worker.conftest import COLOURS, MODEL, Sabotaged, photo, refuse_colours
from worker.station import Station


def value(station: Station, name: str, **labels: str) -> float | None:
    return station.metrics.registry.get_sample_value(f"captioning_{name}", labels)


def test_it_counts_micro_batches_waiting_model_time_and_outcomes(
    queue: Queue, station: Station
) -> None:
    for colour in COLOURS[:5]:
        queue.submit(photo(colour))
    with queue.database.write() as session:
        session.execute(update(Job).values(available_at=db_now(-50)))

    station.work()

    assert value(station, "micro_batch_images_count", model=MODEL) == 2
    assert value(station, "micro_batch_images_sum", model=MODEL) == 5
    assert value(station, "queue_wait_seconds_bucket", model=MODEL, le="30.0") == 0
    assert value(station, "queue_wait_seconds_count", model=MODEL) == 5
    assert value(station, "jobs_finished_total", model=MODEL, outcome="succeeded") == 5
    assert value(station, "model_images_total", model=MODEL) == 5
    model_s = value(station, "model_seconds_total", model=MODEL)
    assert model_s is not None
    assert model_s > 0


def test_it_counts_what_a_model_was_spared(queue: Queue, station: Station) -> None:
    for _ in range(3):
        queue.submit(photo("red"))
    station.work()
    assert value(station, "jobs_answered_total", model=MODEL) == 2
    assert value(station, "jobs_finished_total", model=MODEL, outcome="succeeded") == 3
    assert value(station, "queue_wait_seconds_count", model=MODEL) == 3
    assert value(station, "model_images_total", model=MODEL) == 1
    assert value(station, "micro_batch_images_count", model=MODEL) == 1


def test_it_counts_failures_by_code(queue: Queue, station: Station) -> None:
    missing = queue.submit(photo("red")).read()
    queue.storage.delete([missing.image.key])
    before = value(station, "jobs_finished_total", model=MODEL, outcome="image_missing")
    station.work()
    after = value(station, "jobs_finished_total", model=MODEL, outcome="image_missing")
    assert (before, after) == (0, 1)  # a rate begins at what is there first


def test_it_counts_retries_and_then_the_failure(queue: Queue, captioner: Captioner) -> None:
    station = Station(queue, {MODEL: Sabotaged(captioner, refuse_colours)})  # type: ignore[dict-item]
    queue.submit(photo("red"))
    for _ in range(queue.settings.max_attempts):
        station.work()
        with queue.database.write() as session:
            session.execute(update(Job).values(available_at=db_now()))
    assert value(station, "jobs_retried_total", model=MODEL, code="model_failed") == 2
    assert value(station, "jobs_finished_total", model=MODEL, outcome="model_failed") == 1
    station.close()


def test_it_counts_outcomes_that_came_too_late(queue: Queue, captioner: Captioner) -> None:
    def lose_the_lease(pixels: torch.Tensor) -> None:
        with queue.database.write() as session:
            session.execute(update(Job).values(lease_token="0" * 32))

    station = Station(queue, {MODEL: Sabotaged(captioner, lose_the_lease)})  # type: ignore[dict-item]
    queue.submit(photo("red"))
    station.work()
    assert value(station, "leases_lost_total", model=MODEL) == 1
    assert value(station, "jobs_finished_total", model=MODEL, outcome="succeeded") == 0
    station.close()


def test_it_counts_sweeps(station: Station) -> None:
    station.metrics.swept(SweepReport(queued_again={"a", "b"}, crashed={"c"}, images_removed=3))
    found = [
        value(station, "swept_total", what=what)
        for what in ("queued_again", "crashed", "image_removed")
    ]
    assert (value(station, "sweeps_total"), found) == (1, [2, 1, 3])


def test_it_says_which_models_it_serves(station: Station, captioner: Captioner) -> None:
    labels = {"model": MODEL, "revision": captioner.revision, "device": str(captioner.device)}
    assert value(station, "model_info", **labels) == 1


def test_the_metrics_are_served_on_a_port_of_their_own(station: Station) -> None:
    port = free_port()
    metrics.serve(station.metrics.registry, "127.0.0.1", port)
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
    assert "captioning_sweeps_total 0.0" in answer.text
    assert "process_resident_memory_bytes" in answer.text
    with pytest.raises(SettingsError, match=f"127.0.0.1:{port}: Address already in use"):
        metrics.serve(station.metrics.registry, "127.0.0.1", port)
