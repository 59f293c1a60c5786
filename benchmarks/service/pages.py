"""What the script and style of each page weigh as they are sent, gzipped, and the page itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from benchmarks.service.ground import ground
from web import samples

ASSET = re.compile(r'(?:src|href)="(/static/[^"]+[.](?:js|css)[^"]*)"')


@dataclass(frozen=True)
class Row:
    page: str
    assets: int
    assets_kb: float
    page_kb: float
    """Not compressed."""

    def __str__(self) -> str:
        return f"| {self.page} | {self.assets} | {self.assets_kb:.1f} | {self.page_kb:.1f} |"


HEADER = """\
| page | scripts and styles | their KB (<= 60) | page, KB |
|---|---|---|---|"""


def measure() -> Iterator[Row]:
    with ground("sqlite") as place, place.web(), httpx.Client(base_url=place.url) as http:
        for name, path in _paths(http).items():
            page = http.get(path).raise_for_status()
            found = set(ASSET.findall(page.text))
            sizes = [_sent(http, asset) for asset in found]
            yield Row(name, len(found), sum(sizes) / 1000, len(page.content) / 1000)


def _paths(http: httpx.Client) -> dict[str, str]:
    photo = samples.read("cat")
    batch = http.post("/api/v1/batches", files={"images": photo}).raise_for_status().json()
    return {
        "upload": "/",
        "batch": f"/batches/{batch['id']}",
        "job": f"/jobs/{batch['jobs'][0]['id']}",
        "gallery": "/gallery",
        "API reference": "/api/docs",
    }


def _sent(http: httpx.Client, asset: str) -> int:
    with http.stream("GET", asset, headers={"Accept-Encoding": "gzip"}) as answer:
        return sum(map(len, answer.raise_for_status().iter_raw()))
