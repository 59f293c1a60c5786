"""The next start finds what a killed supervisor left running, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest

from captioning.local.folder import DataFolder
from captioning.local.record import Record, end
from tests.local.conftest import SLEEPER, STUBBORN, MakeChild, is_up, wait_until


def test_a_living_child_is_found_by_the_next_record(
    folder: DataFolder, make_child: MakeChild
) -> None:
    child = make_child(SLEEPER)
    child.start()
    found = Record(folder.children).leftovers()
    assert {name: process.pid for name, process in found.items()} == {"sleeper": child.pid}


def test_a_stopped_child_is_not_found(folder: DataFolder, make_child: MakeChild) -> None:
    child = make_child(SLEEPER)
    child.start()
    child.stop()
    assert json.loads(folder.children.read_text()) == {}
    assert Record(folder.children).leftovers() == {}


def test_a_dead_child_is_not_found(folder: DataFolder, record: Record) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    record.add("brief", process.pid)
    process.wait()
    assert Record(folder.children).leftovers() == {}


def test_a_foreign_process_of_the_same_id_is_not_found(folder: DataFolder, record: Record) -> None:
    record.add("me", os.getpid())
    assert "me" in Record(folder.children).leftovers()
    entries = json.loads(folder.children.read_text())
    entries["me"]["created"] -= 60
    folder.children.write_text(json.dumps(entries))
    assert Record(folder.children).leftovers() == {}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[1]", '{"web": 5}', '{"web": {"pid": 1}}', '{"web": {"pid": "x"}}', "7"],
)
def test_a_broken_record_holds_nothing(folder: DataFolder, text: str) -> None:
    folder.children.write_text(text)
    assert Record(folder.children).leftovers() == {}


def test_a_record_that_cannot_be_written_stops_nobody(folder: DataFolder, record: Record) -> None:
    folder.children.mkdir()
    record.add("me", os.getpid())
    record.remove("me")


def is_gone(process: psutil.Process) -> bool:
    try:
        # A zombie waits for the init of its container to notice.
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_ending_takes_the_stubborn_and_its_children(make_child: MakeChild) -> None:
    code = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], stdout=subprocess.DEVNULL)\n"
    )
    parent = make_child(code + STUBBORN)
    parent.start()
    wait_until(is_up(parent))
    family = [psutil.Process(parent.pid), *psutil.Process(parent.pid).children()]
    assert len(family) == 2
    end(family[0], stop_s=0.2)
    wait_until(lambda: all(is_gone(process) for process in family))


def test_ending_the_dead_is_no_mistake(make_child: MakeChild) -> None:
    child = make_child(SLEEPER)
    child.start()
    process = psutil.Process(child.pid)
    child.stop()
    end(process)
