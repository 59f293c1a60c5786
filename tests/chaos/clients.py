"""Senders of photographs. Who gets no answer, or is told to come back, sends the same again under
the same key, to the next web server, until it has been accepted."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from itertools import count

import httpx

from tests.factories import photo

ANSWER_S = 60
"""However much is broken, an upload that has got through is answered by then."""
PAUSE_S = 0.2


def send(client: httpx.Client, key: str, number: int, server: str = "") -> httpx.Response:
    """Upload a photograph that no other number has."""
    data = photo(colour=(number % 256, 90, number // 256), format="PNG")
    return client.post(
        f"{server}/api/v1/jobs",
        files={"image": (f"{number}.png", data)},
        headers={"Idempotency-Key": key},
        timeout=ANSWER_S,
    )


class Clients:
    """So many photographs, sent by a few threads."""

    def __init__(self, servers: Sequence[str], photographs: int, threads: int = 4) -> None:
        self.accepted: list[str] = []
        """The ids of the jobs that were answered with 202."""
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._servers = servers
        self._key = uuid.uuid4().hex
        self._numbers: Iterator[int] = iter(range(photographs))
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        with httpx.Client() as client:
            while (number := self._take()) is not None:
                self._insist(client, number)

    def _take(self) -> int | None:
        with self._lock:
            return next(self._numbers, None)

    def _insist(self, client: httpx.Client, number: int) -> None:
        for attempt in count(number):
            server = self._servers[attempt % len(self._servers)]
            told = "no answer"
            try:
                answer = send(client, f"{self._key}-{number}", number, server)
            except httpx.ReadTimeout:
                self.wrong.append(f"no answer within {ANSWER_S} s")
            except httpx.TransportError:
                pass  # it is dead, or died while it was at it
            else:
                if answer.status_code == HTTPStatus.ACCEPTED:
                    self.accepted.append(answer.json()["id"])
                    return
                if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                    self.wrong.append(f"{answer.status_code}: {answer.text}")
                    return
                told = answer.json()["code"]
            with self._lock:
                self.refused[told] += 1
            threading.Event().wait(PAUSE_S)
