"""What Prometheus may ask: the state of the queue, read from SQL when it is asked for, and the
port that a process shows its metrics on. What web and worker count is in their own modules.

Each process has one registry of its own: the web server is one process with many threads, so
nothing has to be added up between processes here. Prometheus adds up what it scrapes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from captioning import queries, webhooks
from captioning.errors import SettingsError, Unavailable
from captioning.queue import Queue

FRESH_S = 5.0
"""Several Prometheus servers, or an impatient one, cost the database one reading in this time."""


def new_registry() -> CollectorRegistry:
    """A registry that knows the process: its memory, processor time, open files."""
    # They are a second time series for each counter, and nothing reads them.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


def serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Show the metrics on a port of their own, on a thread that ends with the process. Proxies
    need no rule to keep them from the public.

    Raises: SettingsError when the port is not to be had.
    """
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(f"cannot show metrics on {host}:{port}: {reason}") from error


class QueueCollector(Collector):
    """The queue as SQL knows it: the same from whichever process it is asked."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._metrics: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_S:
                self._metrics = self._read()
                self._read_at = time.monotonic()
            return self._metrics

    def _read(self) -> list[Metric]:
        up = GaugeMetricFamily("captioning_database_up", "Whether the database answers.")
        try:
            with self._queue.database.read() as session:
                states = queries.queue_states(session, self._queue.settings.models)
                workers = queries.live_workers(session)
                messages = webhooks.count_open(session)
        except Unavailable:
            up.add_metric([], 0)  # and nothing about the queue: the rest of the scrape goes on
            return [up]
        up.add_metric([], 1)
        queued = _by_model("captioning_jobs_queued", "Jobs that wait for a worker.")
        running = _by_model("captioning_jobs_running", "Jobs that a worker holds.")
        oldest = _by_model(
            "captioning_oldest_queued_seconds", "How long the oldest claimable job has waited."
        )
        alive = _by_model("captioning_workers", "Workers that were seen lately.")
        for model, state in states.items():
            queued.add_metric([model], state.queued)
            running.add_metric([model], state.running)
            oldest.add_metric([model], state.oldest_s)
            alive.add_metric([model], sum(model in worker.models for worker in workers))
        waiting = GaugeMetricFamily(
            "captioning_webhooks_open", "Messages that are neither received nor given up yet."
        )
        waiting.add_metric([], messages)
        return [up, queued, running, oldest, alive, waiting]


def _by_model(name: str, meaning: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=["model"])
