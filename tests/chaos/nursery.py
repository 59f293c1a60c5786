"""Starts workers at the price of one: a process that has imported torch forks them. Each of them
is `python -m worker` from there on, with an environment of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.dying import arm
from tests.servers import end_with_the_tests


class Nursery:
    """The process that forks, as its owner sees it. Its workers end with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_the_tests,
        )

    def start(
        self,
        environment: Mapping[str, str],
        log: Path,
        dies: tuple[str, Path] | None = None,
        encode_s: float = 0,
    ) -> psutil.Process:
        """A new worker. `dies` names the point that it dies at, and the mark it leaves; `encode_s`
        is what a micro-batch takes longer than the tiny model does."""
        assert self._process.stdin
        assert self._process.stdout
        order = {
            "environment": dict(environment),
            "log": str(log),
            "dies": dies and [dies[0], str(dies[1])],
            "encode_s": encode_s,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return psutil.Process(int(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    import worker.__main__  # noqa: F401  (what takes so long)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever dies is gone at once
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_worker(**order)
        print(pid, flush=True)


def _become_worker(
    environment: Mapping[str, str], log: str, dies: tuple[str, str] | None, encode_s: float
) -> None:
    from worker.__main__ import main

    end_with_the_tests()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, descriptor, descriptor)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(environment)
    if dies:
        arm(dies[0], Path(dies[1]))
    if encode_s:
        _slow_down(encode_s)
    code = 1
    try:
        code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # what is below on the stack is the nursery's


def _slow_down(seconds: float) -> None:
    from clipcap import Captioner

    encode = Captioner.encode

    def slowly(captioner: Captioner, pixels: Any) -> Any:
        time.sleep(seconds)
        return encode(captioner, pixels)

    Captioner.encode = slowly  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
