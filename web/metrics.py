"""How long the web takes to answer, by route: the pattern that matched, never the path that was
asked for, which would be a time series for each job."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial

from apiflask import APIFlask
from flask import Response, g, request
from prometheus_client import CollectorRegistry, Histogram

from captioning.metrics import QueueCollector, new_registry
from captioning.queue import Queue

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
UNMATCHED = "unmatched"


class WebMetrics:
    """The registry of one application."""

    def __init__(self, queue: Queue) -> None:
        self.registry: CollectorRegistry = new_registry()
        self.registry.register(QueueCollector(queue))
        self.latency_s = Histogram(
            "captioning_http_request_seconds",
            "From a request's headers to its answer; what waits for a caption waits on purpose.",
            ["method", "route", "status"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )


def init_app(app: APIFlask) -> None:
    """Before the other parts: what they refuse is measured, too."""
    metrics = WebMetrics(app.extensions["captioning"])
    app.extensions["captioning.metrics"] = metrics
    app.before_request(_start)
    series = lru_cache(maxsize=1024)(metrics.latency_s.labels)  # it looks for them each time
    app.after_request(partial(_measure, series))


def _start() -> None:
    g.started_at = time.perf_counter()


def _measure(series: Callable[..., Histogram], response: Response) -> Response:
    rule = request.url_rule
    # A method that no rule names is anything that somebody cared to send.
    method, route = (request.method, rule.rule) if rule else ("", UNMATCHED)
    latency_s = time.perf_counter() - g.started_at
    series(method, route, response.status_code).observe(latency_s)
    return response
