"""A child is logged, restarted after a pause that grows, and stopped for certain."""

from __future__ import annotations

import signal

import psutil
import pytest

from captioning.local import child as child_module
from captioning.local.child import Child
from tests.local.conftest import DYING, SLEEPER, STUBBORN, MakeChild, is_up, wait_until

pytestmark = pytest.mark.slow


def die(child: Child) -> int:
    codes: list[int | None] = []
    wait_until(lambda: codes.append(child.reap()) or codes[-1] is not None)  # type: ignore[func-returns-value]
    assert codes[-1] is not None
    return codes[-1]


def test_its_output_is_in_its_log(make_child: MakeChild) -> None:
    child = make_child("import sys; print('out'); print('err', file=sys.stderr)")
    child.start()
    assert die(child) == 0
    assert sorted(child.log.read_text().split()) == ["err", "out"]


def test_its_environment_is_ours_and_the_spec_s(
    make_child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "1")
    child = make_child(
        "import os; print(os.environ['OURS'], os.environ['ITS'])", environment={"ITS": "2"}
    )
    child.start()
    die(child)
    assert child.last_words() == "1 2"


def test_a_death_is_reported_once(make_child: MakeChild) -> None:
    child = make_child(DYING)
    child.start()
    assert die(child) == 3
    assert child.reap() is None
    assert child.last_words() == "no such model"


def test_a_signal_is_reported_as_one(make_child: MakeChild) -> None:
    child = make_child(SLEEPER)
    child.start()
    psutil.Process(child.pid).kill()
    assert die(child) == -signal.SIGKILL


def test_the_pause_grows_with_each_failure_up_to_a_limit(make_child: MakeChild) -> None:
    child = make_child(DYING)
    pauses = []
    for _ in range(7):
        child.start()
        die(child)
        pauses.append(child.pause_s)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_it_is_not_restarted_before_its_pause_is_over(make_child: MakeChild) -> None:
    child = make_child(DYING)
    child.start()
    die(child)
    child.restart_when_due()
    assert child.pid is None
    wait_until(lambda: child.restart_when_due() or child.pid is not None)  # type: ignore[func-returns-value]


def test_a_steady_life_is_forgiven(make_child: MakeChild, monkeypatch: pytest.MonkeyPatch) -> None:
    child = make_child(DYING)
    for _ in range(3):
        child.start()
        die(child)
    monkeypatch.setattr(child_module, "STEADY_S", 0)
    child.start()
    die(child)
    assert child.failures == 1


def test_a_missing_program_counts_as_a_failure(make_child: MakeChild) -> None:
    child = make_child(SLEEPER)
    child.spec.command[0] = "/nowhere/python"  # type: ignore[index]
    with pytest.raises(FileNotFoundError):
        child.restart_when_due()
    assert child.failures == 1
    child.restart_when_due()  # not due yet


@pytest.mark.parametrize("code", [SLEEPER, STUBBORN])
def test_stopping_ends_it_for_certain(make_child: MakeChild, code: str) -> None:
    child = make_child(code, stop_s=0.2)
    child.start()
    wait_until(is_up(child))
    process = psutil.Process(child.pid)
    child.stop()
    assert not process.is_running()
    assert child.pid is None
    child.stop()


def test_a_terminal_s_signals_do_not_reach_it(make_child: MakeChild) -> None:
    child = make_child("import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))")
    child.start()
    die(child)
    assert child.last_words() == "True"


def test_a_large_log_is_set_aside_at_the_next_start(
    make_child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "LOG_MAX_BYTES", 5)
    child = make_child("print('many words')")
    for _ in range(2):
        child.start()
        die(child)
    assert child.log.read_text() == "many words\n"
    assert child.log.with_name("sleeper.log.1").read_text() == "many words\n"


def test_a_silent_child_has_no_last_words(make_child: MakeChild) -> None:
    assert make_child(SLEEPER).last_words() == ""
