"""Sends the messages that are due, on threads of its own: however slow a receiver is, no
caption waits for it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from captioning import messages, webhooks
from captioning.errors import Unavailable
from captioning.messages import Message
from captioning.queue import Queue
from worker.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

THREADS = 4


class Courier:
    """As many threads as there are messages, and at most THREADS. It is woken when something
    may have become due, and by a timer in any case."""

    def __init__(self, queue: Queue, metrics: WorkerMetrics) -> None:
        self._queue = queue
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="courier")
        self._idle = threading.Semaphore(THREADS)
        self._stopping = threading.Event()

    def wake(self) -> None:
        """Have one more thread look for messages, if one is idle."""
        if not self._stopping.is_set() and self._idle.acquire(blocking=False):
            with suppress(RuntimeError):  # stopped just now
                self._threads.submit(self._work)

    def stop(self) -> None:
        """Take up nothing more, and wait for what is on its way."""
        self._stopping.set()
        self._threads.shutdown()

    def _work(self) -> None:
        try:
            while not self._stopping.is_set() and (message := self._take()):
                self.wake()  # there may be more
                self._deliver(message)
        except Unavailable as error:
            logger.warning("messages wait: %s", error)  # for the timer, and who was to be sent
        except Exception:
            logger.exception("a message was not sent")
        finally:
            self._idle.release()

    def _take(self) -> Message | None:
        with self._queue.database.write() as session:
            return webhooks.take_due(session)

    def _deliver(self, message: Message) -> None:
        answer = messages.send(message, self._queue.settings.webhook_networks)
        with self._queue.database.write() as session:
            status = webhooks.record(session, message, answer)
        self._metrics.delivered(status, answer.seconds)
        if answer.error:  # without the address, which may hold a password
            logger.warning("message %s, attempt %d: %s", message.id, message.attempt, answer.error)
