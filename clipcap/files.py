"""Captions for files: photographs are read and made ready in threads, ahead of the model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

from torch import Tensor

from clipcap.captioner import Caption, Captioner
from clipcap.errors import DataError
from clipcap.images import open_image
from clipcap.options import DecodingOptions

READERS = min(8, os.cpu_count() or 1)


def caption_files(
    captioner: Captioner,
    paths: Iterable[Path],
    options: DecodingOptions | None = None,
    *,
    batch_size: int = 16,
) -> Generator[tuple[Path, list[Caption] | DataError]]:
    """For each path, in their order, its candidates, best first, or why it cannot be read.

    `paths` is consumed as it is needed: the pixels of three batches are held at most.
    """
    with closing(_read_ahead(captioner, paths, ahead=batch_size)) as photos:
        while batch := list(islice(photos, batch_size)):
            readable = [pixels for _, pixels in batch if isinstance(pixels, Tensor)]
            found = iter(captioner.caption_pixels(readable, options))
            for path, pixels in batch:
                yield path, pixels if isinstance(pixels, DataError) else next(found)


def read_pixels(captioner: Captioner, path: Path) -> Tensor:
    """What the model sees of a photograph: `(3, H, W)`. Raises: DataError."""
    # A JPEG is read at no less than twice what the model sees: beside once, 9 ms and not 6 for 7
    # megapixels (36 at full size), but then embeddings move by 0.0002 (1 - cosine), not 0.0013.
    height, width = captioner.image_size
    return captioner.preprocess(open_image(path, at_least=(2 * height, 2 * width)))


def _read_ahead(
    captioner: Captioner, paths: Iterable[Path], *, ahead: int
) -> Generator[tuple[Path, Tensor | DataError]]:
    def read(path: Path) -> Tensor | DataError:
        try:
            return read_pixels(captioner, path)
        except DataError as error:
            return error

    pool = ThreadPoolExecutor(READERS, thread_name_prefix="read")
    waiting: deque[tuple[Path, Future[Tensor | DataError]]] = deque()
    try:
        for path in paths:
            waiting.append((path, pool.submit(read, path)))
            if len(waiting) > ahead:
                first, pixels = waiting.popleft()
                yield first, pixels.result()
        while waiting:
            first, pixels = waiting.popleft()
            yield first, pixels.result()
    finally:
        pool.shutdown(cancel_futures=True)
