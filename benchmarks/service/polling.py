"""Reading a job's status over HTTP beside a bare Flask JSON route in the same server: four clients
on connections of their own, in turns."""

from __future__ import annotations

import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import psutil

from benchmarks.service.ground import Ground, Process, ground
from benchmarks.service.rows import grow

KINDS = ("postgresql", "sqlite")
CLIENTS = 4
JOBS = 1000


@dataclass(frozen=True)
class Row:
    database: str
    polls_a_second: float
    bare_a_second: float
    poll_cpu_ms: float
    bare_cpu_ms: float

    def __str__(self) -> str:
        return (
            f"| {self.database} | {self.polls_a_second:.0f} | {self.bare_a_second:.0f} "
            f"| {100 * self.polls_a_second / self.bare_a_second:.0f} % "
            f"| {self.poll_cpu_ms:.2f} | {self.bare_cpu_ms:.2f} |"
        )


HEADER = """\
| database | polls a second | bare route | share (>= 50 %) | server's CPU ms a poll | bare |
|---|---|---|---|---|---|"""


def measure(requests: int = 2000, rounds: int = 3) -> list[Row]:
    return [_measure(kind, requests, rounds) for kind in KINDS]


def _measure(kind: str, requests: int, rounds: int) -> Row:
    with ExitStack() as stack:
        ours, bare = (stack.enter_context(ground(kind)) for _ in range(2))
        grow(ours, kind, JOBS)
        asked = {
            (ours, stack.enter_context(ours.web())): f"/api/v1/jobs/{1:032x}",
            (bare, stack.enter_context(bare.web("benchmarks.service.bare"))): "/healthz",
        }
        taken: list[list[tuple[float, float]]] = [[], []]
        for turn in range(rounds + 1):
            for found, ((place, process), path) in zip(taken, asked.items(), strict=True):
                measured = _ask(place, process, path, requests)
                if turn:
                    found.append(measured)
    (polls_s, polls_cpu_s), (bare_s, bare_cpu_s) = (
        (statistics.median(wall), statistics.median(cpu))
        for wall, cpu in (zip(*found, strict=True) for found in taken)
    )
    return Row(
        kind,
        requests / polls_s,
        requests / bare_s,
        1000 * polls_cpu_s / requests,
        1000 * bare_cpu_s / requests,
    )


def _ask(place: Ground, process: Process, path: str, requests: int) -> tuple[float, float]:
    """The seconds, and those of the server's processor."""
    before, started = cpu_s(process), time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda _: _client(place, path, requests // CLIENTS), range(CLIENTS)))
    return time.perf_counter() - started, cpu_s(process) - before


def _client(place: Ground, path: str, requests: int) -> None:
    """As little of a client as can be: it shares the processor with the server."""
    port = place.settings.port
    asking = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection.makefile("rb") as answers:
            for _ in range(requests):
                connection.sendall(asking)
                if b" 200 " not in answers.readline():
                    raise RuntimeError("it does not answer as it should")
                length = 0
                while (line := answers.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                answers.read(length)


def cpu_s(process: Process) -> float:
    whole = psutil.Process(process.pid)
    each = [one.cpu_times() for one in (whole, *whole.children(recursive=True))]
    return sum(times.user + times.system for times in each)
