"""Keeps children alive until it is told to stop. Knows processes, nothing of captions."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from captioning.local.child import Child
from captioning.local.errors import StartError

TICK_S = 0.1
ASK_S = 0.5
REMIND_S = 30
ANSWER_S = 30
START_ATTEMPTS = 3
"""A child that fails so often before the service was ever ready has been set up wrongly, and a
newcomer wants the prompt back. Later it is an outage, and the supervisor never gives up."""


class StopNow(BaseException):
    """The second Ctrl-C: no more patience."""


class Supervisor:
    """Children are started in the order given and stopped in the reverse order.

    `missing` says what the service still waits for, or None when it is ready; `on_ready` is
    called once; `say` gets the lines for the terminal.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        missing: Callable[[], str | None],
        on_ready: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._children = children
        self._missing = missing
        self._on_ready = on_ready
        self._say = say
        self._stopping = False
        self._killing = False
        self._ready = False

    def run(self) -> None:
        """Returns after SIGINT, SIGTERM or SIGHUP, with every child stopped. A second signal
        kills them at once. Must be on the main thread.

        Raises: StartError when a child cannot be brought up.
        """
        with self._signals():
            try:
                self._start()
                self._watch()
                if self._stopping:
                    self._say("Stopping …")
                for child in reversed(self._children):
                    child.stop()
            finally:
                self._killing = True
                for child in reversed(self._children):
                    child.stop(0)  # nothing to do after an orderly stop

    def _start(self) -> None:
        for child in self._children:
            if self._stopping:
                return
            self._bring_up(child)
            deadline = time.monotonic() + ANSWER_S
            while not self._stopping and not child.spec.answers():
                if (code := child.reap()) is not None or time.monotonic() > deadline:
                    raise self._cannot_start(child, code)
                time.sleep(TICK_S)

    def _bring_up(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:
            raise StartError(f"{child.name} cannot be started: {error}") from error

    def _watch(self) -> None:
        ask_at, remind_at = 0.0, time.monotonic() + REMIND_S
        while not self._stopping:
            for child in self._children:
                if (code := child.reap()) is not None:
                    self._report(child, code)
                self._restart_when_due(child)
            if not self._ready and time.monotonic() >= ask_at:
                lacking = self._missing()
                if lacking is None:
                    self._ready = True
                    self._on_ready()
                elif time.monotonic() >= remind_at:
                    self._say(f"Still waiting: {lacking}")
                    remind_at = time.monotonic() + REMIND_S
                ask_at = time.monotonic() + ASK_S
            time.sleep(TICK_S)

    def _restart_when_due(self, child: Child) -> None:
        try:
            child.restart_when_due()
        except OSError as error:  # a full disk, no more processes: it may pass
            self._say(f"{child.name} cannot be started: {error}")

    def _report(self, child: Child, code: int) -> None:
        if not self._ready and child.failures >= START_ATTEMPTS:
            raise self._cannot_start(child, code)
        self._say(
            f"{child.name} {_how_it_ended(code)}, starting it again in {child.pause_s:.0f} s. "
            f"Its last words: {child.last_words() or 'none'}"
        )

    def _cannot_start(self, child: Child, code: int | None) -> StartError:
        how = "does not answer" if code is None else _how_it_ended(code)
        return StartError(
            f"{child.name} {how}. Its last words: {child.last_words() or 'none'} (log: {child.log})"
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            if self._stopping and not self._killing:
                raise StopNow
            self._stopping = True

        wanted = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
            wanted.append(signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
