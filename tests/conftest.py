"""What all tests share: the rule that nothing is skipped, and the tiny model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.sites import Answer, Site

if TYPE_CHECKING:
    from tests.servers import Valkey

# Tiny matrices are slower on two threads, and a hundred times slower when another process is
# busy. torch reads this when it is imported; so do the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

skipped_without_leave: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and "gpu" not in report.keywords:
        skipped_without_leave.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        skipped_without_leave.append(report.nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process of pytest-xdist has sent the reports of its tests, but not those of collecting."""
    found = getattr(node, "workeroutput", {}).get("skipped", [])
    skipped_without_leave.extend(each for each in found if each not in skipped_without_leave)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """`make test` sets up everything, so a skipped test is a broken promise: only those marked
    `gpu` may skip."""
    if hasattr(session.config, "workeroutput"):  # in a process of pytest-xdist
        session.config.workeroutput["skipped"] = skipped_without_leave
        return
    if skipped_without_leave and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if skipped_without_leave:
        terminalreporter.section("skipped without leave", red=True)
        for nodeid in skipped_without_leave:
            terminalreporter.line(nodeid)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny real model: it names the colour of a plain picture."""
    from tests.tiny_bundle import build_tiny_bundle  # it loads torch, which few tests need

    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def expecting_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, ranking its beams by the CIDEr that they can be expected to have."""
    from tests.tiny_bundle import EXPECTING_CONFIG, build_tiny_bundle

    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "expecting", EXPECTING_CONFIG)


@pytest.fixture
def valkey() -> Valkey:
    """The run's broker, emptied."""
    from tests import servers  # with databases, which few tests need

    server = servers.valkey()
    with server.client as client:
        client.flushall()
    return server


@pytest.fixture
def site() -> Iterator[Callable[[Answer], Site]]:
    """Makes servers of somebody else, which end with the test."""
    sites: list[Site] = []

    def make(answer: Answer) -> Site:
        sites.append(Site(answer))
        return sites[-1]

    yield make
    for each in sites:
        each.close()


@pytest.fixture
def here_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """For this test the loopback address is one like any other."""
    monkeypatch.setattr("captioning.outgoing.is_public", lambda address: address == "127.0.0.1")
