"""Steps of a client, and the one that everything is made of: a request, sent until its answer
is worth no further attempt."""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any, TypeVar

import httpx

from captioning.client import errors
from captioning.errors import CaptioningError, QuotaExceeded
from captioning.queue import Photo

RETRIED = (429, 502, 503, 504)
LOST = (502, 504)
"""Of a proxy that cannot say whether the service got the request."""
FIRST_DELAY_S, LAST_DELAY_S = 0.5, 8.0
RETRY_AFTER_MAX_S = 60.0


@dataclass(frozen=True)
class Send:
    """A request. The result is an httpx.Response or httpx.TransportError."""

    method: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)
    held_s: float = 0
    """How long the service may hold its answer back, beyond what any answer may take."""

    def patience(self, usual: httpx.Timeout) -> httpx.Timeout:
        """How long to wait for the answer, of a client that usually waits so long."""
        patient = httpx.Timeout(usual)
        if patient.read is not None:
            patient.read += self.held_s
        return patient


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Read:
    """A photograph. The result is an Upload or CaptioningError."""

    photo: Photo


@dataclass(frozen=True)
class Found:
    """Something for the caller, on the way."""

    value: Any


Step = Send | Pause | Read | Found
T = TypeVar("T")
Steps = Generator[Step, Any, T]


def exchange(
    send: Send, retries: int, *, settled: type[CaptioningError] | tuple[()] = ()
) -> Steps[httpx.Response]:
    """Send until there is an answer that is worth no further attempt. After one that was lost,
    a `settled` error says that the request has been carried out, and is answered with.

    Raises: CaptioningError, for any other answer of 400 and above.
    """
    delay_s = FIRST_DELAY_S
    lost = False
    for attempt in count():
        # Jitter, so that many clients that were refused together do not come back together.
        pause_s = delay_s * random.uniform(0.5, 1)  # noqa: S311  (no secret)
        error: CaptioningError
        answer: httpx.Response | httpx.TransportError = yield send
        if isinstance(answer, httpx.TransportError):
            error = errors.ServiceUnreachable(f"The service cannot be reached: {answer}.")
            error.__cause__ = answer
            lost = True
        else:
            if not answer.is_error:
                return answer
            error = errors.of_answer(answer)
            if lost and isinstance(error, settled):
                return answer
            lost = lost or answer.status_code in LOST
            # Until the next day begins is no time to wait for.
            if answer.status_code not in RETRIED or isinstance(error, QuotaExceeded):
                raise error
            pause_s = _retry_after_s(answer) or pause_s
        if attempt == retries:
            raise error
        yield Pause(pause_s)
        delay_s = min(delay_s * 2, LAST_DELAY_S)
    raise AssertionError("count() has no end")


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds, or until a date (RFC 9110), within reason."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value) if value.isdigit() else _until(parsedate_to_datetime(value))
    except ValueError:
        return None
    return min(max(seconds, 0), RETRY_AFTER_MAX_S)


def _until(date: datetime) -> float:
    return (date.astimezone(UTC) - datetime.now(UTC)).total_seconds()
