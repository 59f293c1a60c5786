"""The product's own processes, made to die at a named point: by SIGKILL, so that nothing of theirs
is tidied up, and once, so that what takes their place lives.

`python -m tests.chaos.dying POINT MARK` is `python -m web` with that fault.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Point:
    """A place in the code: before or after the n-th call of a function."""

    function: str
    when: str = "before"
    call: int = 1


POINTS = {
    # Of the web, as it takes an upload in. Two photographs are four objects in the store.
    "after the image rows": Point("captioning.storage:Storage.put_all"),
    "between the bytes": Point("captioning.storage:Storage.put", call=4),
    "after the bytes": Point("captioning.jobs:submit"),
    "inside the accepting transaction": Point("captioning.jobs:submit", "after"),
    "after the commit": Point("captioning.broker:Doorbell.ring"),
    "after the ring": Point("captioning.broker:Doorbell.ring", "after"),
    # Of the web, as it deletes.
    "after the deletion": Point("captioning.queue:Queue.discard"),
    "after the deletion of the bytes": Point("captioning.queries:delete_pending_images"),
    # Of a worker. What it counts marks the places: its metrics do nothing else.
    "after the claim": Point("worker.metrics:WorkerMetrics.claimed"),
    "after inference": Point("worker.metrics:WorkerMetrics.ran"),
    "inside the saving transaction": Point("captioning.jobs:succeed", "after"),
    "after the save": Point("worker.metrics:WorkerMetrics.ended"),
}


def arm(name: str, mark: Path) -> None:
    """Have this process, or one that it forks, die at the point. The file `mark` says that one
    has."""
    point = POINTS[name]
    module, _, path = point.function.partition(":")
    *holders, attribute = path.split(".")
    holder = pkgutil.resolve_name(":".join([module, ".".join(holders)]) if holders else module)
    original = getattr(holder, attribute)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        now = calls == point.call and not mark.exists()
        if now and point.when == "before":
            _die(mark)
        result = original(*args, **kwargs)
        if now:
            _die(mark)
        return result

    setattr(holder, attribute, deadly)


def _die(mark: Path) -> None:
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from web.__main__ import main

    arm(sys.argv[1], Path(sys.argv[2]))
    sys.exit(main())
