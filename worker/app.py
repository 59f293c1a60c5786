"""The Celery application of a worker: one task, which answers the doorbell."""

from __future__ import annotations

import logging

from celery import Celery
from celery.signals import worker_shutting_down

from captioning.broker import TASK, make_celery, queue_name
from captioning.errors import Unavailable
from captioning.settings import Settings
from worker.consumer import Consumer
from worker.station import Station

logger = logging.getLogger(__name__)

THREADS = 2
"""One has the model while the other claims and decodes."""


def make_app(settings: Settings, station: Station) -> Celery:
    app = make_celery(settings)
    app.conf.worker_consumer = Consumer

    def work(model: str) -> None:
        """Somebody rang. `model` chose the queue; the station serves all of its models."""
        try:
            station.work()
        except Unavailable as error:
            # The jobs are where they were. The sweep comes back to them.
            logger.warning("work interrupted: %s", error)

    app.task(name=TASK)(work)
    return app


def run(app: Celery, station: Station) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Must be on the main thread."""

    def stop_claiming(**_: object) -> None:
        station.stop()

    worker_shutting_down.connect(stop_claiming, weak=False)

    worker = app.Worker(
        pool="threads",
        concurrency=THREADS,
        queues=[queue_name(model) for model in station.captioners],
        loglevel=logging.INFO,
        quiet=True,  # its banner is no log line
        # Workers have nothing to say to each other: SQL is where they meet.
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)
