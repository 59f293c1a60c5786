"""The courier: what is due is sent, and what is slow or goes wrong stands in nobody's way."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from captioning import jobs, webhook_secrets, webhooks
from captioning.database import db_now
from captioning.errors import DatabaseUnavailable
from captioning.models import DeliveryStatus, WebhookDelivery
from captioning.queue import Queue
from tests.sites import Answer, Site, always, respond
from tests.worker.conftest import photo
from tests.worker.test_pulse import eventually
from worker.courier import THREADS, Courier
from worker.metrics import WorkerMetrics
from worker.station import Station

Sites = Callable[[Answer], Site]


@pytest.fixture
def queue(queue: Queue) -> Queue:
    """One that may send to this machine."""
    queue.settings = queue.settings.model_copy(
        update={"webhook_networks": (IPv4Network("127.0.0.1/32"),)}
    )
    return queue


@pytest.fixture
def courier(queue: Queue) -> Iterator[Courier]:
    courier = Courier(queue, WorkerMetrics({}))
    yield courier
    courier.stop()


def ended_job(queue: Queue, url: str) -> str:
    handle = queue.submit(photo("red"), webhook_url=url)
    with queue.database.write() as session:
        jobs.cancel(session, handle.id)
    return handle.id


def statuses(queue: Queue) -> list[str]:
    with queue.database.read() as session:
        return [each.status for each in webhooks.list_deliveries(session, limit=100)]


def count(courier: Courier, outcome: str) -> float:
    registry = courier._metrics.registry
    return registry.get_sample_value("captioning_webhook_attempts_total", {"outcome": outcome}) or 0


def test_a_caption_is_told_as_soon_as_it_is_saved(
    queue: Queue, station: Station, site: Sites
) -> None:
    target = site(always(respond("200 OK")))
    handle = queue.submit(photo("red"), webhook_url=target.url)
    station.work()
    eventually(lambda: statuses(queue) == [DeliveryStatus.DELIVERED])
    (request,) = target.asked
    head, _, body = request.partition("\r\n\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
    with queue.database.write() as session:
        secret = webhook_secrets.secret_of(session, "")
    # Its case is part of a signature.
    headers["webhook-signature"] = head.split("webhook-signature: ")[1].split("\r\n")[0]
    said = Webhook(secret).verify(body.encode("latin-1"), headers)
    assert said["data"]["id"] == handle.id
    assert said["data"]["caption"] == handle.captions[0]
    assert count(station.courier, "delivered") == 1


def test_all_that_is_due_is_sent_by_one_waking(queue: Queue, courier: Courier, site: Sites) -> None:
    target = site(always(respond("200 OK")))
    job_ids = {ended_job(queue, target.url) for _ in range(3 * THREADS)}
    courier.wake()
    eventually(lambda: statuses(queue) == [DeliveryStatus.DELIVERED] * len(job_ids))
    told = [json.loads(request.partition("\r\n\r\n")[2])["data"]["id"] for request in target.asked]
    assert sorted(told) == sorted(job_ids)


def test_slow_receivers_hold_up_no_other(queue: Queue, courier: Courier, site: Sites) -> None:
    go_on = threading.Event()

    def linger(connection: socket.socket, path: str) -> None:
        go_on.wait(60)
        connection.sendall(respond("200 OK"))

    slow, quick = site(linger), site(always(respond("200 OK")))
    for _ in range(THREADS - 1):
        ended_job(queue, slow.url)
    courier.wake()
    eventually(lambda: len(slow.asked) == THREADS - 1)
    ended_job(queue, quick.url)
    courier.wake()
    eventually(lambda: len(quick.asked) == 1)
    go_on.set()


def test_what_was_not_received_is_sent_again(
    queue: Queue, courier: Courier, site: Sites, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [respond("500 Oops"), respond("200 OK")]
    target = site(lambda connection, path: connection.sendall(answers.pop(0)))
    ended_job(queue, f"{target.url}/?token=swordfish")
    with caplog.at_level(logging.WARNING):
        courier.wake()
        eventually(lambda: statuses(queue) == [DeliveryStatus.PENDING])
        eventually(lambda: count(courier, "retried") == 1)
    assert "500" in caplog.text
    assert "swordfish" not in caplog.text
    with queue.database.write() as session:
        session.execute(update(WebhookDelivery).values(next_at=db_now(-1)))
    courier.wake()
    eventually(lambda: statuses(queue) == [DeliveryStatus.DELIVERED])
    first, second = (request.partition("\r\n\r\n")[0] for request in target.asked)
    assert first.split("webhook-id: ")[1][:32] == second.split("webhook-id: ")[1][:32]


def test_a_database_that_is_away_costs_no_thread(
    queue: Queue, courier: Courier, site: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = site(always(respond("200 OK")))
    ended_job(queue, target.url)
    asked = threading.Semaphore(0)

    def away(session: object) -> None:
        asked.release()
        raise DatabaseUnavailable("It is away.")

    with monkeypatch.context() as patched:
        patched.setattr(webhooks, "take_due", away)
        for _ in range(2 * THREADS):
            courier.wake()
            assert asked.acquire(timeout=30)
            eventually(lambda: courier._idle._value == THREADS)
    courier.wake()
    eventually(lambda: statuses(queue) == [DeliveryStatus.DELIVERED])


def test_stopping_waits_for_what_is_on_its_way_and_takes_up_no_more(
    queue: Queue, courier: Courier, site: Sites
) -> None:
    go_on = threading.Event()

    def linger(connection: socket.socket, path: str) -> None:
        go_on.wait(60)
        connection.sendall(respond("200 OK"))

    target = site(linger)
    ended_job(queue, target.url)
    courier.wake()
    eventually(lambda: len(target.asked) == 1)
    stopping = threading.Thread(target=courier.stop)
    stopping.start()
    eventually(courier._stopping.is_set)
    ended_job(queue, target.url)
    courier.wake()
    go_on.set()
    stopping.join(60)
    assert sorted(statuses(queue)) == [DeliveryStatus.DELIVERED, DeliveryStatus.PENDING]


SENDER = """
import sys
from pathlib import Path
from captioning.queue import Queue
from captioning.settings import Settings
from worker.courier import Courier
from worker.metrics import WorkerMetrics

networks = ("127.0.0.1/32",)
queue = Queue(Settings(data_dir=Path(sys.argv[1]), webhook_networks=networks))
Courier(queue, WorkerMetrics({})).wake()
sys.stdin.read()
"""


@pytest.mark.slow
def test_what_a_killed_worker_was_sending_is_sent_again_under_its_id(
    queue: Queue, courier: Courier, site: Sites
) -> None:
    killed = threading.Event()

    def answer(connection: socket.socket, path: str) -> None:
        if killed.is_set():
            connection.sendall(respond("200 OK"))
        else:
            killed.wait(120)

    target = site(answer)
    ended_job(queue, target.url)
    command = [sys.executable, "-c", SENDER, str(queue.settings.data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2]) as sender:
        eventually(lambda: len(target.asked) == 1, timeout_s=240)
        sender.kill()
    killed.set()
    courier.wake()
    assert statuses(queue) == [DeliveryStatus.SENDING]  # until its time is up
    with queue.database.write() as session:
        session.execute(update(WebhookDelivery).values(next_at=db_now(-1)))
    courier.wake()
    eventually(lambda: statuses(queue) == [DeliveryStatus.DELIVERED])
    first, second = (request.partition("\r\n\r\n")[0] for request in target.asked)
    assert first.split("webhook-id: ")[1][:32] == second.split("webhook-id: ")[1][:32]
