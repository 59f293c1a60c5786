"""One photograph alone, from POST /api/v1/jobs to its caption by ?wait=20, beside what the model
takes for it in a process of its own."""

from __future__ import annotations

import io
import statistics
import time
from dataclasses import dataclass

import httpx
from PIL import Image

from benchmarks.service.filling import unlike_any
from benchmarks.service.ground import ground
from clipcap import Captioner
from web import samples

KINDS = ("postgresql", "sqlite")
CALM_S = 0.3
"""Between two turns, until threads that wait for work have stopped spinning."""


@dataclass(frozen=True)
class Row:
    database: str
    photographs: int
    service_ms: float
    model_ms: float

    def __str__(self) -> str:
        return (
            f"| {self.database} | {self.photographs} | {self.service_ms:.0f} "
            f"| {self.model_ms:.0f} | {self.service_ms - self.model_ms:.0f} |"
        )


HEADER = """\
| database | photographs | POST to caption, p50 ms | model alone, p50 ms | difference (<= 60) |
|---|---|---|---|---|"""


def measure(model: str = "bundled", photographs: int = 40) -> list[Row]:
    captioner = Captioner.load(model.partition("=")[2] or model)
    return [_measure(kind, captioner, model, photographs) for kind in KINDS]


def _measure(kind: str, captioner: Captioner, model: str, count: int) -> Row:
    photos = [samples.read(name) for name in samples.SAMPLES]
    service_ms: list[float] = []
    model_ms: list[float] = []
    with (
        ground(kind, model) as place,
        place.workers(),
        place.web(),
        httpx.Client(base_url=place.url, timeout=60) as http,
    ):
        for turn in range(-3, count):  # those before the first do not count
            photo = photos[turn % len(photos)]
            time.sleep(CALM_S)
            started = time.perf_counter()
            _ask(http, unlike_any(photo))
            asked = time.perf_counter()
            time.sleep(CALM_S)
            began = time.perf_counter()
            captioner.caption([Image.open(io.BytesIO(photo))])
            if turn >= 0:
                service_ms.append(1000 * (asked - started))
                model_ms.append(1000 * (time.perf_counter() - began))
    return Row(kind, count, statistics.median(service_ms), statistics.median(model_ms))


def _ask(http: httpx.Client, photo: bytes) -> None:
    accepted = http.post("/api/v1/jobs", files={"image": photo}).raise_for_status()
    job = http.get(accepted.headers["Location"], params={"wait": 20}).raise_for_status().json()
    if job["status"] != "succeeded":
        raise RuntimeError(f"the job is {job['status']}")
