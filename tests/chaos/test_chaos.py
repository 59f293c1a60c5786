"""The short form of `make chaos`: every kind of part is killed while photographs are sent."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.nursery import Nursery
from tests.chaos.run import FIXED_SEED, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SHORT = {"photographs": 60, "faults": 6}


@pytest.fixture(scope="module")
def fleet(
    tiny_bundle: Path, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("chaos"), tiny_bundle, nursery)
    yield fleet
    fleet.close()


def test_whatever_is_killed_every_photograph_ends_once(fleet: Fleet) -> None:
    summary = run(fleet, seed=FIXED_SEED, **SHORT)
    print(summary)
    assert {name.split()[0] for fault in summary.faults for name in fault.names} == {
        "worker",
        "web",
        "database",
        "broker",
    }


def test_and_so_it_does_with_another_seed_each_time(fleet: Fleet) -> None:
    print(run(fleet, seed=secrets.randbelow(10**9), **SHORT))
