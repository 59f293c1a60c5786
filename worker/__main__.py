"""`python -m worker`: the worker process. The only module here that reads the environment."""

from __future__ import annotations

import os
import signal
import sys

from captioning import logs, metrics
from captioning.errors import CaptioningError
from captioning.migrate import require_current
from captioning.queue import Queue
from captioning.settings import load_settings
from clipcap import ClipCapError
from clipcap.heap import keep_freed_memory
from worker import models
from worker.app import make_app, run
from worker.pulse import Pulse
from worker.station import Station


def main() -> int:
    # Models load for a while, and the first process of a container ignores what it has no handler
    # for. Not sys.exit, which would wait for the thread that loads: nothing is held yet.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    keep_freed_memory()
    try:
        settings = load_settings()
        logs.configure(settings.log_format)
        queue = Queue(settings)
        require_current(queue.database)
        station = Station(queue, models.load(settings.models))
        if settings.worker_metrics_port:
            metrics.serve(station.metrics.registry, settings.host, settings.worker_metrics_port)
    except (CaptioningError, ClipCapError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until Celery has its own: it signs off
    pulse = Pulse(queue, station)
    pulse.start()
    try:
        return run(make_app(settings, station), station)
    finally:
        station.close()
        pulse.stop()
        queue.close()


if __name__ == "__main__":
    sys.exit(main())
