"""`python -m benchmarks.service.soak [MINUTES]`: photographs come in at a steady pace for an hour,
and the memory of web server and worker is watched: how fast it grows, after a first fifth."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.service.filling import unlike_any
from benchmarks.service.ground import Process, ground
from web import samples


@dataclass(frozen=True)
class Row:
    process: str
    captions: int
    first_mb: float
    last_mb: float
    mb_an_hour: float

    def __str__(self) -> str:
        return (
            f"| {self.process} | {self.captions} | {self.first_mb:.0f} | {self.last_mb:.0f} "
            f"| {self.mb_an_hour:+.1f} |"
        )


ASKED_TIMES = 15
"""Before a caption is given up, of 20 s each: what else the machine does may keep it waiting."""
HEADER = """\
| process | captions | MB at first | MB at last | MB an hour |
|---|---|---|---|---|"""


def measure(
    minutes: float = 60, model: str = "bundled", kind: str = "sqlite", pause_s: float = 0.5
) -> list[Row]:
    photos = [samples.read(name) for name in samples.SAMPLES]
    seen: dict[str, list[tuple[float, float]]] = {"web": [], "worker": []}
    captions = 0
    with (
        ground(kind, model) as place,
        place.workers() as worker,
        place.web() as web,
        httpx.Client(base_url=place.url, timeout=60) as http,
    ):
        started = time.monotonic()
        while (now_s := time.monotonic() - started) < 60 * minutes:
            job = http.post(
                "/api/v1/jobs", files={"image": unlike_any(photos[captions % len(photos)])}
            )
            where = job.raise_for_status().headers["Location"]
            _see_captioned(http, where)
            captions += 1
            for name, process in (("web", web), ("worker", worker)):
                seen[name].append((now_s / 3600, memory_mb(process)))
            time.sleep(pause_s)
    return [_row(name, captions, found) for name, found in seen.items()]


def _see_captioned(http: httpx.Client, where: str) -> None:
    for _ in range(ASKED_TIMES):
        status = http.get(where, params={"wait": 20}).json()["status"]
        if status == "succeeded":
            return
    raise RuntimeError(f"{where} is {status} after {ASKED_TIMES * 20} s")


def _row(name: str, captions: int, found: list[tuple[float, float]]) -> Row:
    steady = found[len(found) // 5 :]
    hours, megabytes = zip(*steady, strict=True)
    slope = statistics.linear_regression(hours, megabytes).slope
    return Row(name, captions, megabytes[0], megabytes[-1], slope)


def memory_mb(process: Process) -> float:
    whole = psutil.Process(process.pid)
    each = (whole, *whole.children(recursive=True))
    return sum(one.memory_info().rss for one in each) / 1e6


if __name__ == "__main__":
    print(HEADER, *measure(*map(float, sys.argv[1:])), sep="\n")
