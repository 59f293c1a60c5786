"""A queue on SQLite without a broker, and a tiny real captioner whose steps can be made to fail."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from captioning import queries
from captioning.migrate import migrate
from captioning.models import Job
from captioning.queue import Queue
from captioning.settings import Settings
from clipcap import Captioner
from worker.station import Station

MODEL = "tiny"
COLOURS = ["red", "green", "blue", "white", "black", "yellow", "cyan"]


def photo(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


def refuse_colours(pixels: torch.Tensor) -> None:
    """What is grey, such as the image that a worker tries its model with, is fine."""
    if (pixels.amax(dim=1) - pixels.amin(dim=1)).max() > 1:
        raise RuntimeError("no")


class Sabotaged:
    """A captioner that does what a given function does before each pass of the encoder."""

    def __init__(self, captioner: Captioner, before_encode: Callable[[torch.Tensor], None]) -> None:
        self._captioner = captioner
        self._before_encode = before_encode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._captioner, name)

    def run(self, work: Callable[[], Any]) -> Any:
        """In the thread of who asks. Workers of real life are processes, each with a thread that
        computes: one that is held up there holds up no other."""
        return work()

    def encode(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        self._before_encode(torch.stack(list(pixels)))
        return self._captioner.encode(pixels)


@pytest.fixture(scope="session")
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner.load(tiny_bundle)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    settings = Settings(
        data_dir=tmp_path,
        models={MODEL: "unused"},
        batch_size=4,
        broker_url=f"redis+socket://{tmp_path}/no-broker.sock",
    )
    queue = Queue(settings)
    migrate(queue.database)
    yield queue
    queue.close()


@pytest.fixture
def station(queue: Queue, captioner: Captioner) -> Iterator[Station]:
    station = Station(queue, {MODEL: captioner})
    yield station
    station.close()


def read(queue: Queue, job_id: str) -> Job:
    with queue.database.read() as session:
        return queries.get_job(session, job_id)
