from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from clipcap.model_thread import model_thread

CPU = torch.device("cpu")


def test_all_work_on_a_device_is_done_by_one_thread_whoever_asks() -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(model_thread(CPU).run, threading.get_ident) for _ in range(20)]
    assert len({one.result() for one in asked}) == 1
    assert model_thread(CPU).run(threading.get_ident) != threading.get_ident()


def test_work_may_ask_for_more_of_it_and_its_errors_reach_who_asked() -> None:
    thread = model_thread(CPU)
    assert thread.run(lambda: thread.run(lambda: 3)) == 3

    def fail() -> None:
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        thread.run(fail)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_a_thread_of_its_own() -> None:
    model_thread(CPU).run(lambda: None)
    child = os.fork()
    if not child:
        os._exit(model_thread(CPU).run(lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.slow
@pytest.mark.parametrize("program", ["clipcap.captioner", "clipcap.cli", "worker.__main__"])
@pytest.mark.parametrize("chosen", [None, "77"])
def test_threads_that_wait_go_to_sleep_soon(program: str, chosen: str | None) -> None:
    """Unless somebody has said otherwise: libgomp reads it when it is loaded."""
    given = {"GOMP_SPINCOUNT": chosen} if chosen else {}
    inherited = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", f"import {program}, torch"],
        env={**inherited, **given, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert f"GOMP_SPINCOUNT = '{chosen or 10000}'" in done.stderr
