"""How the processes log: plain lines for people, or one JSON object a line for collectors.
It knows of the request in hand, and nothing of who reads the lines."""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

PLAIN = "%(asctime)s %(levelname)s %(name)s %(message)s"

SUBJECTS = ("job_id", "job_ids", "request_id", "request_ids")
"""What a line may be about: given by `extra`, written where it is given."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the HTTP request that this thread answers."""


class JsonFormatter(logging.Formatter):
    """One object a line: a traceback is a member of its line, not twenty lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "thread": record.threadName,
        }
        if current := request_id.get():
            line["request_id"] = current
        line |= {name: said for name in SUBJECTS if (said := getattr(record, name, None))}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(form: str) -> None:
    """Log to standard error, as `text` or as `json`. Called once, by each process's main."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(PLAIN))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Python prints these itself, in lines of another form.
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda caught: _log_uncaught(
        caught.exc_type, caught.exc_value, caught.exc_traceback
    )


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if error is not None and not issubclass(kind, KeyboardInterrupt | SystemExit):
        logger.critical("uncaught: %s", kind.__name__, exc_info=(kind, error, trace))
