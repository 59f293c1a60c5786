"""One thread for all work on a device: whoever calls waits for it.

OpenMP keeps a team of threads for each thread that computes. Once all teams together are more than
the processors, none of them waits awake for its next piece of work, and a model, which hands out
thousands of small ones a second, takes a quarter longer. So what computes is one thread, whichever
asked for it, and what only prepares pixels computes without torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


class ModelThread:
    """Does one piece of work at a time."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name, initializer=self._begin)
        self._ident: int | None = None

    def _begin(self) -> None:
        self._ident = threading.get_ident()

    def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises, when its turn has come. It may call `run` in turn."""
        if threading.get_ident() == self._ident:
            return work()
        return self._pool.submit(work).result()


@cache
def model_thread(device: torch.device) -> ModelThread:
    return ModelThread(f"model-{device}")


os.register_at_fork(after_in_child=model_thread.cache_clear)  # threads are not inherited
