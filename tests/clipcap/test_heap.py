"""Freed memory is kept: what is allocated next needs no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from click.testing import CliRunner

from captioning.errors import CaptioningError
from clipcap import cli
from clipcap.heap import keep_freed_memory
from worker import __main__ as worker

# In a thread, as a model computes, and in a process of its own: the setting cannot be taken back.
PROGRAM = """
import resource, sys
from threading import Thread

from clipcap.heap import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

import torch

def work():
    for _ in range(10):
        torch.ones(2**24)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = Thread(target=work)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

# What is small and comes in between may yet move what is large: it settles.
print(min(faults() for _ in range(5)))
"""


def faults(mode: str) -> int:
    command = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_kept_memory_has_its_pages_already() -> None:
    assert faults("keep") * 5 < faults("return")


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


def test_other_c_libraries_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()


def test_the_command_and_the_worker_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_settings() -> None:
        raise CaptioningError("none")

    kept: list[str] = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: kept.append("command"))
    monkeypatch.setattr(worker, "keep_freed_memory", lambda: kept.append("worker"))
    monkeypatch.setattr(worker, "load_settings", no_settings)
    CliRunner().invoke(cli.main, ["info", "--help"])
    assert worker.main() == 1
    assert kept == ["command", "worker"]
