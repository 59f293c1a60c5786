"""The network between the processes and their broker, and their database, drags, breaks and falls
silent. Uploads are taken or refused clearly meanwhile, and afterwards every one that was taken is
captioned once, by processes that nobody has restarted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count

import httpx
import psutil
import pytest
from sqlalchemy import select

from captioning import queries
from captioning.migrate import migrate
from captioning.models import Job, JobStatus
from captioning.queue import Queue
from captioning.settings import Settings
from tests.acceptance.service import free_port
from tests.chaos.clients import send
from tests.chaos.nursery import Nursery
from tests.chaos.processes import (
    assert_each_ended_once,
    environment,
    left,
    make_all_due,
    wait_until,
    web,
)
from tests.chaos.proxy import Proxy
from tests.servers import postgresql, valkey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FAULTS: dict[str, Callable[[Proxy], None]] = {
    "drags": lambda network: network.delay(0.1),
    "breaks": Proxy.cut,
    "falls silent": Proxy.swallow,
}


@dataclass
class Service:
    """A web server and a worker, behind a network."""

    queue: Queue
    """Past the network."""
    networks: dict[str, Proxy]
    client: httpx.Client
    worker: psutil.Process
    accepted: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def send(self, photographs: int) -> dict[int, httpx.Response]:
        """All at the same moment."""
        numbers = [next(self._numbers) for _ in range(photographs)]
        with ThreadPoolExecutor(photographs) as pool:
            return dict(zip(numbers, pool.map(self.send_again, numbers), strict=True))

    def send_again(self, number: int) -> httpx.Response:
        answer = send(self.client, f"key-{number}", number)
        if answer.status_code == 202:
            self.accepted.append(answer.json()["id"])
        return answer

    def all_ended(self) -> bool:
        with self.queue.database.read() as session:
            statuses = session.scalars(select(Job.status).where(Job.id.in_(self.accepted))).all()
        return all(JobStatus(status).finished for status in statuses)

    def served(self) -> bool:
        with self.queue.database.read() as session:
            return bool(queries.served_models(session))


@pytest.fixture(scope="module")
def service(
    tiny_bundle: object, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("network")
    with ExitStack() as stack:
        url = stack.enter_context(postgresql().database())
        networks = {"broker": Proxy(valkey().socket), "database": Proxy(postgresql().socket)}
        for network in networks.values():
            stack.callback(network.close)
        settings = Settings(
            data_dir=folder,
            database_url=url,
            broker_url=valkey().url,
            storage_url=(folder / "storage").as_uri(),
            models={"tiny": str(tiny_bundle)},
            batch_size=4,
            lease_s=20,
            heartbeat_s=2,
            sweep_s=1,
        )
        queue = Queue(settings)
        stack.callback(queue.close)
        migrate(queue.database)
        through = {
            "broker_url": f"redis://127.0.0.1:{networks['broker'].port}/0",
            "database_url": f"{url.partition('?')[0]}?host=127.0.0.1"
            f"&port={networks['database'].port}",
        }
        behind = settings.model_copy(update=through)
        client = stack.enter_context(web(behind, free_port()))
        log = folder / "worker.log"
        worker = nursery.start(environment(behind), log)
        stack.callback(worker.kill)
        service = Service(queue, networks, client, worker)
        wait_until(service.served, log.read_text)
        yield service


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["broker", "database"])
def test_a_network_in_trouble_loses_nothing_and_hangs_nobody(
    service: Service, where: str, fault: str
) -> None:
    assert {answer.status_code for answer in service.send(4).values()} == {202}
    network = service.networks[where]
    FAULTS[fault](network)
    try:
        answers = service.send(4)
        if where == "broker":  # it only rings: what was taken is captioned without it
            wait_until(service.all_ended)
    finally:
        network.heal()
    taken = where == "broker" or fault == "drags"
    assert {answer.status_code for answer in answers.values()} == {202 if taken else 503}
    for number, answer in answers.items():
        if not taken:
            assert answer.json()["code"] == "database_unavailable"
            assert "Retry-After" in answer.headers
            wait_until(lambda number=number: service.send_again(number).status_code == 202)
    wait_until(service.all_ended)
    make_all_due(service.queue)
    wait_until(lambda: left(service.queue)[0] == 0)  # the worker sweeps
    assert_each_ended_once(service.queue, service.accepted)


def test_both_have_come_back_by_themselves(service: Service) -> None:
    """The last of the module: after all that, the worker that began is the one that hears."""
    assert service.worker.is_running()
    checks = service.client.get("/readyz").json()["checks"]
    assert set(checks.values()) == {"ok"}
    with valkey().client as client:
        wait_until(lambda: any(each["cmd"] == "brpop" for each in client.client_list()))
