"""The service's problems as the very exceptions that the service itself raises, by their
codes, and what else can go wrong between here and there.

    CaptioningError
    ├── (all of captioning/errors.py, such as ImageTooLarge, UnknownModel, JobNotFound)
    ├── RequestRefused         for a reason that this version has no name for
    ├── CaptioningFailed       the job ended without a caption
    ├── TimedOut               the job has not ended yet
    └── Unavailable
        └── ServiceUnreachable
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from captioning.client.answers import Job
from captioning.errors import CaptioningError, Unavailable
from captioning.queue import AllRejected, Rejection


class ServiceUnreachable(Unavailable):
    """The service cannot be reached."""

    code = "service_unreachable"


class RequestRefused(CaptioningError):
    """The service refused the request."""

    code = "request_refused"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class CaptioningFailed(CaptioningError):
    """The photograph could not be captioned."""

    code = "captioning_failed"

    def __init__(self, job: Job) -> None:
        super().__init__(job.error.message if job.error else f"The job was {job.status}.")
        self.job = job


class TimedOut(CaptioningError):
    """The job has not finished in time."""

    code = "timed_out"

    def __init__(self, job: Job) -> None:
        super().__init__(f"Job {job.id} is still {job.status}.")
        self.job = job


def of_answer(response: httpx.Response) -> CaptioningError:
    """The exception that an answer of 400 or above stands for."""
    try:
        problem = response.json()
        code, detail = problem["code"], problem["detail"]
    except (ValueError, LookupError, TypeError):  # not ours: of a proxy in between
        reason = f"{response.status_code} {response.reason_phrase} from {response.url}"
        return RequestRefused(reason, response.status_code)
    if code == AllRejected.code:
        return AllRejected(tuple(Rejection(**item) for item in problem["rejected"]))
    return of_code(code, detail) or RequestRefused(f"{code}: {detail}", response.status_code)


def of_code(code: str, message: str) -> CaptioningError | None:
    return next((kind(message) for kind in _kinds(CaptioningError) if kind.code == code), None)


def _kinds(root: type[CaptioningError]) -> Iterator[type[CaptioningError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
