"""Whatever is killed, every photograph gets its caption, once."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL.PngImagePlugin import PngInfo

from captioning.models import Job, JobStatus, new_id
from tests.acceptance.service import WAIT_S, Service
from tests.factories import photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COUNT = 40
SLICE_S = 0.03


@pytest.fixture(scope="module")
def shared(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("surviving")
    service = Service(
        folder, f"tiny={tiny_bundle}", batch_size=4, lease_s=4, heartbeat_s=1, sweep_s=1
    )
    yield service
    service.close()


@pytest.fixture
def service(shared: Service) -> Service:
    """Running, whatever the test before has done to it; a start takes longer than a test."""
    if not shared.is_running:
        shared.start()
    return shared


@pytest.fixture
def many() -> dict[str, bytes]:
    return {f"{number}.png": red() for number in range(COUNT)}


def red() -> bytes:
    """Nobody's bytes before: what was captioned already is not captioned again."""
    own = PngInfo()
    own.add_text("own", new_id())
    return photo(colour="red", format="PNG", pnginfo=own)


def upload_and_freeze(
    service: Service, photos: dict[str, bytes]
) -> tuple[list[str], psutil.Process, set[str]]:
    """Stop the worker in the middle of a batch.

    Returns the ids of all jobs, the worker, and the ids of the jobs that it holds.
    """
    worker = service.children()["worker"]
    worker.suspend()
    job_ids = service.upload(photos)
    while not (held := running(service)):
        assert any(job.status == JobStatus.QUEUED for job in service.jobs(job_ids)), "too quick"
        worker.resume()
        time.sleep(SLICE_S)
        worker.suspend()
    return job_ids, worker, held


def running(service: Service) -> set[str]:
    return {job.id for job in service.jobs() if job.status == JobStatus.RUNNING}


def assert_each_captioned_once(jobs: list[Job]) -> None:
    assert len(jobs) == COUNT
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    assert {len(job.captions) for job in jobs} == {1}
    assert all("red" in job.captions[0].text for job in jobs)


def tried_twice(jobs: list[Job]) -> set[str]:
    """Those that were held when it happened, and on a machine that stands still for longer than
    this short lease, more."""
    assert {job.attempts for job in jobs} <= {1, 2}
    return {job.id for job in jobs if job.attempts == 2}


def test_a_worker_killed_in_the_middle_of_a_batch(service: Service, many: dict[str, bytes]) -> None:
    job_ids, worker, held = upload_and_freeze(service, many)
    worker.kill()
    jobs = service.wait_for(job_ids)
    assert_each_captioned_once(jobs)
    assert held <= tried_twice(jobs)
    assert "worker was killed by SIGKILL, starting it again" in service.said
    assert service.children()["worker"].pid != worker.pid


def test_a_killed_broker(service: Service, many: dict[str, bytes]) -> None:
    service.children()["valkey"].kill()
    assert_each_captioned_once(service.wait_for(service.upload(many)))
    service.wait_until(lambda: "valkey was killed by SIGKILL, starting it again" in service.said)
    # And the doorbell is mended: without it, only the next round would find a job.
    service.wait_until(lambda: service.http.get("/readyz").json()["checks"]["broker"] == "ok")


def test_a_killed_web_server(service: Service, many: dict[str, bytes]) -> None:
    job_ids = service.upload(many)
    web = service.children()["web"]
    orphans = web.children(recursive=True)
    web.kill()
    assert_each_captioned_once(service.wait_for(job_ids))
    # These answer for a moment, and hold the port that the next one needs.
    _, alive = psutil.wait_procs(orphans, timeout=WAIT_S)
    assert not alive
    service.wait_until(lambda: answers(service))


def answers(service: Service) -> bool:
    try:
        return service.http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_supervisor_killed_in_the_middle_of_a_batch(
    service: Service, many: dict[str, bytes]
) -> None:
    job_ids, worker, _ = upload_and_freeze(service, many)
    before = service.children()
    service.kill()
    worker.resume()
    assert all(child.is_running() for child in before.values())
    service.start()
    assert not any(child.is_running() for child in before.values())
    for name, child in before.items():
        assert f"Stopping a {name} (process {child.pid}) that the last run left" in service.said
    assert_each_captioned_once(service.wait_for(job_ids))


def test_everything_killed_at_once(service: Service, many: dict[str, bytes]) -> None:
    job_ids, _, held = upload_and_freeze(service, many)
    family = service.process.children(recursive=True)
    service.kill()
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=WAIT_S)
    service.start()
    jobs = service.wait_for(job_ids)
    assert_each_captioned_once(jobs)
    assert held <= tried_twice(jobs)


def test_a_stop_in_the_middle_gives_the_rest_back(service: Service, many: dict[str, bytes]) -> None:
    job_ids, worker, _ = upload_and_freeze(service, many)
    worker.resume()
    assert service.stop(signal.SIGTERM) == 0
    left = service.jobs(job_ids)
    assert {job.status for job in left} <= {JobStatus.QUEUED, JobStatus.SUCCEEDED}
    assert {job.attempts for job in left if job.status == JobStatus.QUEUED} <= {0}
    service.start()
    jobs = service.wait_for(job_ids)
    assert_each_captioned_once(jobs)
