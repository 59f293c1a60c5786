"""The worker's timers: the heartbeat keeps its leases and its place in the register, the
sweep puts right what dead processes left behind, the rounds take up what no ring announced, the
courier looks for messages that are due."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from captioning import jobs, queries, workers
from captioning.errors import CaptioningError
from captioning.models import new_id
from captioning.queue import Queue
from captioning.sweeper import sweep, tidy
from worker.station import Station

logger = logging.getLogger(__name__)

TIDY_S = 60
"""Whoever sweeps tidies up, too, and then not again for so long."""
STUCK_AFTER_S = 120
STUCK_EXIT_CODE = 70


class Timer(threading.Thread):
    """Calls a duty every `period_s` seconds until stopped. A failing duty is tried again:
    a database that is away must not end the thread that waits for its return."""

    def __init__(self, name: str, period_s: float, duty: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._period_s = period_s
        self._duty = duty
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._period_s):
            try:
                self._duty()
            except CaptioningError as error:
                logger.warning("%s: %s", self.name, error)
            except Exception:
                logger.exception("%s failed", self.name)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


class Pulse:
    """The timers of one worker process, and its row in the register."""

    def __init__(self, queue: Queue, station: Station) -> None:
        self._queue = queue
        self._station = station
        self._worker_id = new_id()
        self._timers = [
            Timer("heartbeat", queue.settings.heartbeat_s, self._beat),
            Timer("sweep", queue.settings.sweep_s, self._sweep),
            Timer("rounds", queue.settings.sweep_s, self._make_rounds),
            Timer("courier", queue.settings.sweep_s, station.courier.wake),
        ]
        self._idle_at = self._tidy_at = time.monotonic()

    def start(self) -> None:
        self._register()
        for timer in self._timers:
            timer.start()

    def stop(self) -> None:
        for timer in self._timers:
            timer.stop()
        with self._queue.database.write() as session:
            workers.deregister(session, self._worker_id)

    def _register(self) -> None:
        with self._queue.database.write() as session:
            workers.register(
                session,
                self._worker_id,
                name=f"{os.getpid()}@{socket.gethostname()}",
                models=list(self._station.captioners),
            )

    def _beat(self) -> None:
        self._exit_if_stuck()
        tokens = self._station.tokens
        with self._queue.database.write() as session:
            if tokens:
                jobs.renew(session, tokens, lease_s=self._queue.settings.lease_s)
            known = workers.beat(session, self._worker_id)
        if not known:
            self._register()

    def _exit_if_stuck(self) -> None:
        """Work that stands still for so long means a process that is hung: it exits, its
        supervisor starts another, and its leases run out."""
        try:
            left = self._work_is_left()
        except CaptioningError:
            left = False  # nobody can work while the database is away
        if not left:
            self._idle_at = time.monotonic()
        elif time.monotonic() - max(self._station.moved_at, self._idle_at) > STUCK_AFTER_S:
            logger.critical("no progress in %d s, exiting", STUCK_AFTER_S)
            os._exit(STUCK_EXIT_CODE)  # a hung thread would keep an orderly exit waiting

    def _work_is_left(self) -> bool:
        if self._station.tokens:
            return True
        with self._queue.database.read() as session:
            return any(
                queries.count_claimable(session, model, at_most=1)
                for model in self._station.captioners
            )

    def _sweep(self) -> None:
        report = sweep(self._queue)
        if not report:
            return
        self._station.metrics.swept(report)
        if time.monotonic() >= self._tidy_at:
            tidy(self._queue)
            self._tidy_at = time.monotonic() + TIDY_S

    def _make_rounds(self) -> None:
        """The doorbell is faster, but a broker that is away, or a consumer that has gone deaf
        to it, must not leave jobs lying."""
        if not self._station.tokens:
            self._station.work()
