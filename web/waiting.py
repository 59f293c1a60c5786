"""Long polling that cannot starve the site: those who wait hold at most half of the threads.

Who finds no seat is answered at once with the job as it is, and asks again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from flask import current_app

from captioning.queue import JobHandle
from web.current import queue

MAX_WAIT_S = 20


class Seats:
    """A limited number of places to wait."""

    def __init__(self, count: int) -> None:
        self._free = BoundedSemaphore(count)

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Hold a place for as long as the block runs; False where none is free."""
        found = self._free.acquire(blocking=False)
        try:
            yield found
        finally:
            if found:
                self._free.release()

    def wait(self, job: JobHandle, timeout_s: float) -> None:
        """Wait until the job has finished or the time is up; no session is open meanwhile.

        Raises: JobNotFound.
        """
        with self.taken() as seated:
            if seated:
                job.wait(timeout_s=timeout_s)


def seats() -> Seats:
    found: Seats = current_app.extensions["captioning.waiting"]
    return found


def wait_for(job_id: str, timeout_s: float) -> None:
    """Raises: JobNotFound."""
    if timeout_s > 0:
        seats().wait(JobHandle(queue(), job_id), timeout_s)
