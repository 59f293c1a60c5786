"""Work in parts that the device's memory has room for. What the largest are, where nobody has
said, is found out by running out of memory, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Room:
    """How many items one kind of work may take at once."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit

    def run(self, work: Callable[[slice], Result], items: int) -> list[Result]:
        """The results of all parts, in order. A part for which the memory does not suffice is
        halved, and no later one will be larger.

        Raises: torch.OutOfMemoryError, where there is no room for one.
        """
        results: list[Result] = []
        start = 0
        while start < items or not results:
            size = min(items - start, self.limit or items)
            try:
                results.append(work(slice(start, start + size)))
                start += size
                continue
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            # Only here has the error let go of what the part had already taken.
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.empty_cache()
            self.limit = size // 2
        return results
