"""Children live as long as the supervisor does, and no longer."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from captioning.local import child as child_module
from captioning.local import supervisor as supervisor_module
from captioning.local.child import Child
from captioning.local.errors import StartError
from captioning.local.supervisor import StopNow, Supervisor
from tests.local.conftest import DYING, SLEEPER, STUBBORN, MakeChild, is_up

pytestmark = pytest.mark.slow


@dataclass
class Stage:
    """Runs a supervisor; `ready` says when its `missing` becomes None, then `act` is called."""

    children: list[Child]
    ready: Callable[[], bool] = lambda: True
    act: Callable[[], None] = lambda: send(signal.SIGTERM)
    said: list[str] = field(default_factory=list)

    def run(self) -> None:
        Supervisor(
            self.children,
            missing=lambda: None if self.ready() else "web: no answer yet",
            on_ready=self.act,
            say=self.said.append,
        ).run()


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _hears_hangups() -> Iterator[None]:
    """Also where the tests run under nohup, which has SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "LAST_PAUSE_S", 0.05)
    monkeypatch.setattr(supervisor_module, "ASK_S", 0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all(make_child: MakeChild, number: signal.Signals) -> None:
    children = [make_child(SLEEPER, name) for name in ("first", "second")]
    processes: list[psutil.Process] = []

    def act() -> None:
        processes.extend(psutil.Process(child.pid) for child in children)
        send(number)

    before = signal.getsignal(number)
    Stage(children, act=act).run()
    assert len(processes) == 2
    assert not any(process.is_running() for process in processes)
    assert signal.getsignal(number) == before


def test_under_nohup_a_hangup_stops_nothing(make_child: MakeChild) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    child = make_child(SLEEPER)

    def act() -> None:
        send(signal.SIGHUP)
        assert psutil.pid_exists(child.pid or 0)
        send(signal.SIGTERM)

    Stage([child], act=act).run()


def test_they_start_in_order_and_stop_in_reverse(make_child: MakeChild, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    code = (
        "import signal, sys\n"
        "diary = open({diary!r}, 'a', buffering=1)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(diary.write('-{name}\\n')))\n"
        "diary.write('+{name}\\n')\n"
    )

    def child(name: str) -> Child:
        return make_child(
            code.format(diary=str(diary), name=name) + SLEEPER,
            name,
            answers=lambda: diary.exists() and f"+{name}" in diary.read_text(),
        )

    Stage([child(name) for name in ("valkey", "worker", "web")]).run()
    assert diary.read_text().split() == ["+valkey", "+worker", "+web", "-web", "-worker", "-valkey"]


def test_one_that_dies_is_started_again(make_child: MakeChild) -> None:
    child = make_child(SLEEPER)
    killed: list[int] = []

    def ready() -> bool:
        if child.pid is not None and is_up(child)() and not killed:
            killed.append(child.pid)
            psutil.Process(child.pid).kill()
        return bool(killed) and child.pid not in (None, *killed)

    stage = Stage([child], ready=ready)
    stage.run()
    assert "sleeper was killed by SIGKILL, starting it again" in stage.said[0]


def test_one_that_never_comes_up_ends_it_all(make_child: MakeChild) -> None:
    well, ill = make_child(SLEEPER, "web"), make_child(DYING, "worker")
    stage = Stage([well, ill], ready=lambda: False)
    with pytest.raises(StartError) as caught:
        stage.run()
    assert str(caught.value) == (
        f"worker ended with exit code 3. Its last words: no such model (log: {ill.log})"
    )
    assert well.pid is None


def test_once_it_was_ready_it_never_gives_up(make_child: MakeChild) -> None:
    child = make_child(DYING)
    enough = 2 * supervisor_module.START_ATTEMPTS

    def say(line: str) -> None:
        if "exit code 3" in line and child.failures == enough:
            send(signal.SIGTERM)

    Supervisor([child], missing=lambda: None, on_ready=lambda: None, say=say).run()
    assert child.failures >= enough


def test_the_next_is_not_started_before_the_first_answers(
    make_child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "ANSWER_S", 0.3)
    deaf, next_one = make_child(SLEEPER, "valkey", answers=lambda: False), make_child(SLEEPER)
    with pytest.raises(StartError, match="valkey does not answer"):
        Stage([deaf, next_one]).run()
    assert not next_one.log.exists()
    assert deaf.pid is None


def test_one_that_dies_before_it_answers_is_quoted(make_child: MakeChild) -> None:
    child = make_child(DYING, "valkey", answers=lambda: False)
    with pytest.raises(StartError, match=r"valkey ended with exit code 3\. .*: no such model"):
        Stage([child]).run()


def test_a_program_that_is_not_there_is_said(make_child: MakeChild) -> None:
    child = make_child(SLEEPER, "valkey")
    child.spec.command[0] = "/nowhere/valkey"  # type: ignore[index]
    with pytest.raises(StartError, match=r"valkey cannot be started: .*No such file"):
        Stage([child]).run()


def test_a_signal_while_starting_starts_no_more(make_child: MakeChild) -> None:
    def answers() -> bool:
        send(signal.SIGTERM)
        return False

    first, second = make_child(SLEEPER, answers=answers), make_child(SLEEPER, "second")
    Stage([first, second]).run()
    assert not second.log.exists()
    assert first.pid is None


def test_a_second_signal_kills_at_once(make_child: MakeChild) -> None:
    child = make_child(STUBBORN, stop_s=600)
    processes: list[psutil.Process] = []

    def act() -> None:
        processes.append(psutil.Process(child.pid))
        send(signal.SIGINT)
        threading.Timer(0.5, send, [signal.SIGINT]).start()

    with pytest.raises(StopNow):
        Stage([child], ready=is_up(child), act=act).run()
    assert not processes[0].is_running()


def test_it_says_what_it_waits_for(make_child: MakeChild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "REMIND_S", 0.2)
    began = time.monotonic()
    stage = Stage([make_child(SLEEPER)], ready=lambda: time.monotonic() - began > 1)
    stage.run()
    assert stage.said[0] == "Still waiting: web: no answer yet"
