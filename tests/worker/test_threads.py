"""Which thread computes: what it costs where several do is in clipcap/model_thread.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from captioning.queue import Queue
from clipcap import Captioner
from clipcap.files import caption_files
from tests.worker.conftest import COLOURS, photo
from worker.station import Station


class Computed(TorchDispatchMode):  # type: ignore[misc]
    """Which of torch's operations this thread does, apart from looking at a part of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not func.is_view:
            self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_thread_of_the_worker_computes_nothing_itself(queue: Queue, station: Station) -> None:
    for number, colour in enumerate(COLOURS):
        queue.submit(photo(colour), num_captions=1 + number % 2)
    with Computed() as computed:
        assert station.work() == len(COLOURS)
    assert computed.operations == []


def test_who_prepares_a_photograph_or_asks_for_captions_computes_nothing(
    captioner: Captioner, tmp_path: Path
) -> None:
    files = [tmp_path / f"{colour}.jpg" for colour in COLOURS]
    for colour, file in zip(COLOURS, files, strict=True):
        file.write_bytes(photo(colour))
    image = Image.new("RGB", (40, 30), "red")
    with Computed() as computed:
        captioner.preprocess(image)
        captioner.caption([image, image])
        assert len(list(caption_files(captioner, files))) == len(files)
    assert computed.operations == []
