"""Whether the process lives, and whether it can serve: for supervisors and load balancers."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from threading import Lock

from apiflask import APIBlueprint, APIFlask
from flask import current_app
from flask.typing import ResponseReturnValue

from captioning import queries
from captioning.errors import Unavailable
from captioning.migrate import require_current
from captioning.queue import Queue
from web import problems

OK = "ok"
KEPT_S = 1.0
"""What was found is told for so long: anybody may ask, as often as they like."""

bp = APIBlueprint("health", __name__, enable_openapi=False)


class Checks:
    """What was found last. Of many who ask at once one looks, and the others wait for it."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._lock = Lock()
        self._found: dict[str, str] = {}
        self._kept_until = 0.0

    def found(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() >= self._kept_until:
                self._found = _look(self._queue)
                self._kept_until = time.monotonic() + KEPT_S
            return self._found


def init_app(app: APIFlask) -> None:
    app.register_blueprint(bp)
    app.extensions["captioning.checks"] = Checks(app.extensions["captioning"])


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Touches nothing: what is broken elsewhere is not mended by a restart here."""
    return {"alive": True}


@bp.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Ready means that a photograph sent now would be kept and captioned. A broker that is
    away is reported, and only delays: jobs are in SQL and workers look for them."""
    checks: Checks = current_app.extensions["captioning.checks"]
    found = checks.found()
    ready = all(outcome == OK for part, outcome in found.items() if part != "broker")
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return {"ready": ready, "checks": found}, status


def _look(queue: Queue) -> dict[str, str]:
    checks = {
        "database": _outcome(lambda: require_current(queue.database)),
        "storage": _outcome(lambda: queue.storage.try_writing()),
        "worker": "Unknown without a database.",
    }
    if checks["database"] == OK:  # its tables are there
        checks["worker"] = _outcome(lambda: _require_worker(queue))
    checks["broker"] = OK if queue.doorbell.answers() else "The broker cannot be reached."
    return checks


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except Unavailable as error:
        return problems.told(error)
    return OK


def _require_worker(queue: Queue) -> None:
    model = queue.settings.default_model
    with queue.database.read() as session:
        if model not in queries.served_models(session):
            raise Unavailable(f"No worker serves the model {model}.")
