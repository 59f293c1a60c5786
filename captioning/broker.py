"""Celery, as web and worker both see it. A message is a doorbell, never the truth: it says
"there may be work for this model", the work itself is in SQL, and a lost ring is rung again
by the sweeper."""

from __future__ import annotations

import logging

from celery import Celery
from kombu.exceptions import LimitExceeded, OperationalError

from captioning.settings import Settings

logger = logging.getLogger(__name__)

TASK = "captioning.work"
RING_TIMEOUT_S = 1.0
"""Wait for each answer of the broker when ringing. A worker's own connection waits longer."""
RING_OPTIONS = {"socket_timeout": RING_TIMEOUT_S, "socket_connect_timeout": RING_TIMEOUT_S}
ONCE = {"max_retries": 1, "interval_start": 0}
"""One try to connect, where a connection that was kept is broken: an upload does not wait for a
broker that is down."""
MAX_CONNECTIONS = 16
MAX_RINGS = 64
"""Most rings for one submission: enough to wake every thread of a large fleet."""


def queue_name(model: str) -> str:
    return f"captioning.{model}"


def make_celery(settings: Settings) -> Celery:
    """A Celery application that connects on first use."""
    app = Celery("captioning", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_ignore_result=True,
        # A ring is used up when it is heard: the lease in SQL is what survives a crash.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 300,
            "socket_connect_timeout": 2,
            "socket_timeout": 30,  # of a broker that has frozen: a worker is to end all the same
            "socket_keepalive": True,
        },
        worker_hijack_root_logger=False,
        # The laptop's broker is a Unix socket of our own user; a fleet's is set by URL.
        worker_send_task_events=False,
    )
    return app


class Doorbell:
    """Wakes workers. Ringing never fails the caller: the row is already committed.

    Connections are kept: to make one takes ten times as long as to ring.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        connection = app.connection_for_write(transport_options=RING_OPTIONS)
        self._connections = connection.Pool(MAX_CONNECTIONS)

    def ring(self, model: str, times: int = 1) -> bool:
        """Send up to `times` messages to the model's queue; False when the broker is away."""
        try:
            with self._connections.acquire(block=True, timeout=RING_TIMEOUT_S) as connection:
                connection.ensure_connection(**ONCE, timeout=2)
                for _ in range(min(times, MAX_RINGS)):
                    self._app.send_task(
                        TASK,
                        kwargs={"model": model},
                        queue=queue_name(model),
                        connection=connection,
                        retry=True,
                        retry_policy=ONCE,
                    )
        except (OperationalError, LimitExceeded, OSError) as error:
            logger.warning("doorbell not rung, the sweeper will: %s", error)
            return False
        return True

    def answers(self) -> bool:
        """Whether the broker can be connected to now."""
        try:
            with self._app.connection_for_write(transport_options=RING_OPTIONS) as connection:
                connection.ensure_connection(**ONCE, timeout=2)
        except (OperationalError, OSError) as error:
            logger.warning("the broker is away: %s", error)
            return False
        return True

    def close(self) -> None:
        self._connections.force_close_all()
        self._app.close()
