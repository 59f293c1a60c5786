from __future__ import annotations

import os
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
