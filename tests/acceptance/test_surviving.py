"""Whatever is killed, every photograph gets its caption, once."""

from __future__ import annotations

import signal

import psutil
import pytest

from captioning.models import Job, JobStatus
from tests.acceptance.conftest import MakeService
from tests.acceptance.service import Service
from tests.factories import photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COUNT = 40


@pytest.fixture
def many() -> dict[str, bytes]:
    return {f"{number}.png": photo(colour="red", format="PNG") for number in range(COUNT)}


@pytest.fixture
def service(make_service: MakeService) -> Service:
    service = make_service()
    service.start()
    return service


def freeze_in_the_middle(service: Service) -> tuple[psutil.Process, set[str]]:
    """Stop the worker's clock while it holds jobs; returns it and the ids of those jobs."""
    worker = service.children()["worker"]
    while True:
        service.wait_until(lambda: running(service))
        worker.suspend()
        held = running(service)
        if held:
            return worker, held
        worker.resume()
        assert any(job.status == JobStatus.QUEUED for job in service.jobs()), "it was too quick"


def running(service: Service) -> set[str]:
    return {job.id for job in service.jobs() if job.status == JobStatus.RUNNING}


def assert_each_captioned_once(jobs: list[Job]) -> None:
    assert len(jobs) == COUNT
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    assert {len(job.captions) for job in jobs} == {1}
    assert all("red" in job.captions[0].text for job in jobs)


def test_a_worker_killed_in_the_middle_of_a_batch(service: Service, many: dict[str, bytes]) -> None:
    service.upload(many)
    worker, held = freeze_in_the_middle(service)
    worker.kill()
    jobs = service.wait_for_all()
    assert_each_captioned_once(jobs)
    assert {job.id for job in jobs if job.attempts == 2} == held
    assert "worker was killed by SIGKILL, starting it again" in service.said
    assert service.children()["worker"].pid != worker.pid


def test_a_supervisor_killed_in_the_middle_of_a_batch(
    service: Service, many: dict[str, bytes]
) -> None:
    service.upload(many)
    worker, _ = freeze_in_the_middle(service)
    before = service.children()
    service.kill()
    worker.resume()
    assert all(child.is_running() for child in before.values())
    service.start()
    assert not any(child.is_running() for child in before.values())
    for name, child in before.items():
        assert f"Stopping a {name} (process {child.pid}) that the last run left" in service.said
    assert_each_captioned_once(service.wait_for_all())


def test_everything_killed_at_once(service: Service, many: dict[str, bytes]) -> None:
    service.upload(many)
    _, held = freeze_in_the_middle(service)
    family = service.process.children(recursive=True)
    service.kill()
    for process in family:
        process.kill()
    psutil.wait_procs(family)
    service.start()
    jobs = service.wait_for_all()
    assert_each_captioned_once(jobs)
    assert {job.id for job in jobs if job.attempts == 2} == held


def test_a_killed_broker(service: Service, many: dict[str, bytes]) -> None:
    valkey = service.children()["valkey"]
    valkey.kill()
    service.upload(many)
    assert_each_captioned_once(service.wait_for_all())
    assert "valkey was killed by SIGKILL, starting it again" in service.said
    # And the doorbell is heard again: without it, only the next round would find the job.
    service.wait_until(lambda: service.http.get("/readyz").json()["checks"]["broker"] == "ok")


def test_a_killed_web_server(service: Service, many: dict[str, bytes]) -> None:
    service.upload(many)
    service.children()["web"].kill()
    assert_each_captioned_once(service.wait_for_all())
    service.wait_until(lambda: answers(service))


def answers(service: Service) -> bool:
    try:
        return service.http.get("/healthz").status_code == 200
    except OSError:
        return False


def test_a_stop_in_the_middle_gives_the_rest_back(service: Service, many: dict[str, bytes]) -> None:
    service.upload(many)
    worker, _ = freeze_in_the_middle(service)
    worker.resume()
    assert service.stop(signal.SIGTERM) == 0
    left = service.jobs()
    assert running(service) == set()
    assert {job.attempts for job in left if job.status == JobStatus.QUEUED} <= {0}
    service.start()
    assert_each_captioned_once(service.wait_for_all())
