"""Uploads of 12-megapixel JPEGs over HTTP, as two people at once make them, by the time that they
cost the web server's processor: verified, reduced, stored, queued."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
from PIL import Image, ImageFilter

from benchmarks.service.ground import Ground, ground
from benchmarks.service.polling import cpu_s
from web import samples

KINDS = ("postgresql", "sqlite")
SIZE_PX = (4000, 3000)
PEOPLE = 2


@dataclass(frozen=True)
class Row:
    database: str
    uploads: int
    megabytes: float
    """Of one file."""
    a_second: float
    a_second_and_core: float

    def __str__(self) -> str:
        return (
            f"| {self.database} | {self.uploads} | {self.megabytes:.1f} | {self.a_second:.1f} "
            f"| {self.a_second_and_core:.1f} |"
        )


HEADER = """\
| database | uploads | MB each | uploads a second | a second of one core |
|---|---|---|---|---|"""


def measure(uploads: int = 40) -> list[Row]:
    photos = [_large(seed) for seed in range(4)]
    return [_measure(kind, photos, uploads) for kind in KINDS]


def _measure(kind: str, photos: list[bytes], uploads: int) -> Row:
    with ground(kind) as place, place.web() as process:
        _upload(place, photos, 2)
        before, started = cpu_s(process), time.perf_counter()
        with ThreadPoolExecutor(PEOPLE) as people:
            shares = [uploads // PEOPLE] * PEOPLE
            list(people.map(lambda share: _upload(place, photos, share), shares))
        taken_s, used_s = time.perf_counter() - started, cpu_s(process) - before
    megabytes = sum(map(len, photos)) / len(photos) / 1e6
    return Row(kind, uploads, megabytes, uploads / taken_s, uploads / used_s)


def _upload(place: Ground, photos: list[bytes], count: int) -> None:
    with httpx.Client(base_url=place.url, timeout=60) as http:
        for turn in range(count):
            files = {"image": photos[turn % len(photos)]}
            http.post("/api/v1/jobs", files=files).raise_for_status()


def _large(seed: int) -> bytes:
    """A photograph as a telephone makes them: as many pixels, and with their noise."""
    with Image.open(io.BytesIO(samples.read(list(samples.SAMPLES)[seed]))) as small:
        large = small.convert("RGB").resize(SIZE_PX, Image.Resampling.BICUBIC)
    noise = Image.effect_noise(SIZE_PX, 20).filter(ImageFilter.BoxBlur(1)).convert("RGB")
    buffer = io.BytesIO()
    Image.blend(large, noise, 0.15).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
