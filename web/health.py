"""Whether the process lives, and whether it can serve: for supervisors and load balancers."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from apiflask import APIBlueprint, APIFlask
from flask.typing import ResponseReturnValue

from captioning import queries
from captioning.errors import Unavailable
from captioning.migrate import require_current
from captioning.queue import Queue
from web import problems
from web.current import queue

OK = "ok"
PROBE_KEY = "probe"

bp = APIBlueprint("health", __name__, enable_openapi=False)


def init_app(app: APIFlask) -> None:
    app.register_blueprint(bp)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Touches nothing: what is broken elsewhere is not mended by a restart here."""
    return {"alive": True}


@bp.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Ready means that a photograph sent now would be kept and captioned. A broker that is
    away is reported, and only delays: jobs are in SQL and workers look for them."""
    checks = {
        "database": _outcome(lambda: require_current(queue().database)),
        "storage": _outcome(lambda: queue().storage.put(PROBE_KEY, b"")),
        "worker": "Unknown without a database.",
    }
    if checks["database"] == OK:  # its tables are there
        checks["worker"] = _outcome(lambda: _require_worker(queue()))
    ready = all(outcome == OK for outcome in checks.values())
    connected = queue().doorbell.answers()
    checks["broker"] = OK if connected else "The broker cannot be reached."
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return {"ready": ready, "checks": checks}, status


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
