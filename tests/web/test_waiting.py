from __future__ import annotations

from threading import Event, Thread

from captioning.models import JobStatus
from captioning.queue import JobHandle, Queue
from tests.factories import photo
from tests.web.outcomes import caption
from web.waiting import Seats


class AnnouncedHandle(JobHandle):
    """A job that tells when somebody has begun to wait for it."""

    def __init__(self, queue: Queue, job_id: str) -> None:
        super().__init__(queue, job_id)
        self.waited_for = Event()

    def wait(self, timeout_s: float = 60) -> JobStatus:
        self.waited_for.set()
        return super().wait(timeout_s)


def test_who_finds_no_seat_does_not_wait(queue: Queue) -> None:
    seats = Seats(1)
    seated = AnnouncedHandle(queue, queue.submit(photo()).id)
    standing = AnnouncedHandle(queue, seated.id)
    waiting = Thread(target=seats.wait, args=(seated, 20))
    waiting.start()
    assert seated.waited_for.wait(20)
    seats.wait(standing, 20)
    assert not standing.waited_for.is_set()
    caption(queue, "a wall")
    waiting.join()


def test_a_seat_is_free_again_afterwards(queue: Queue) -> None:
    seats = Seats(1)
    for _ in range(2):
        handle = AnnouncedHandle(queue, queue.submit(photo()).id)
        seats.wait(handle, 0.01)
        assert handle.waited_for.is_set()
