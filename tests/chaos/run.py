"""`python -m tests.chaos.run`, behind `make chaos`: photographs are sent to a service whose parts
are killed at random, and each of them ends once. The same seed kills the same parts in the same
order; at which moment of their work is up to the machine."""

from __future__ import annotations

import argparse
import os
import random
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from captioning.models import Job, JobStatus
from tests.chaos.clients import Clients
from tests.chaos.fleet import LEASE_S, SWEEP_S, Fleet
from tests.chaos.nursery import Nursery
from tests.chaos.processes import assert_each_ended_once

FIXED_SEED = 5
DOWN_S = (0.0, 0.5, 2.0)


@dataclass(frozen=True)
class Fault:
    """Parts that are killed at the same moment, and how long they stay away."""

    names: tuple[str, ...]
    down_s: float


@dataclass(frozen=True)
class Summary:
    """What became of one run."""

    seed: int
    photographs: int
    faults: list[Fault]
    refused: Counter[str]
    attempts: Counter[int]
    recovered_s: float
    took_s: float

    def __str__(self) -> str:
        struck = Counter(name.split()[0] for fault in self.faults for name in fault.names)
        return (
            f"seed {self.seed}: {self.photographs} photographs, each captioned once; "
            f"killed: {_counted(struck)}; sent again: {_counted(self.refused) or 'none'}; "
            f"jobs by attempts: {_counted(self.attempts)}; "
            f"recovered in {self.recovered_s:.1f} s; took {self.took_s:.0f} s"
        )


def run(fleet: Fleet, *, photographs: int, faults: int, seed: int) -> Summary:
    """Strike each time that a share of the work is done, so that a fast machine and a slow one
    are struck as often. Ends with everything running again.

    Raises: AssertionError, when a photograph was lost, captioned twice, or left over.
    """
    print(f"seed {seed}", flush=True)  # of a run that fails, too
    started = time.monotonic()
    before = _jobs(fleet)
    fleet.wait_until(fleet.whole)
    struck = list(_faults(random.Random(seed), fleet.names, faults))  # noqa: S311
    clients = Clients(fleet.urls, photographs)

    def share_done() -> float:
        assert clients.wrong == []  # or it would be waited for in vain
        ended = sum(JobStatus(job.status).finished for job in _jobs(fleet)) - len(before)
        return (len(clients.accepted) + ended) / (2 * photographs)

    for number, fault in enumerate(struck, start=1):
        due = number / (faults + 1)
        fleet.wait_until(lambda due=due: share_done() >= due)
        fleet.kill(fault.names)
        time.sleep(fault.down_s)
        fleet.start(reversed(fault.names))
    recovered_s = _recovery(fleet)
    fleet.wait_until(lambda: clients.done and share_done() >= 1)
    assert clients.wrong == []
    assert len({*clients.accepted}) == photographs
    fleet.settle()
    assert_each_ended_once(fleet.queue, [job.id for job in before] + clients.accepted)
    attempts = Counter(job.attempts for job in _jobs(fleet) if job.id in clients.accepted)
    return Summary(
        seed,
        photographs,
        struck,
        clients.refused,
        attempts,
        recovered_s,
        time.monotonic() - started,
    )


def _faults(chance: random.Random, names: list[str], count: int) -> Iterator[Fault]:
    """Every kind of part is struck, then any; sometimes two at once."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.split()[0], []).append(name)
    firsts = [chance.choice(alike) for alike in kinds.values()]
    chance.shuffle(firsts)
    for number in range(count):
        struck = [firsts[number] if number < len(firsts) else chance.choice(names)]
        if chance.random() < 0.3:
            struck.append(chance.choice([name for name in names if name not in struck]))
        yield Fault(tuple(struck), chance.choice(DOWN_S))


def _recovery(fleet: Fleet) -> float:
    """Seconds from the end of the last fault until nothing is held any more by who held it then.

    A busy machine is slow at everything: what it takes to start a worker is the measure.
    """
    began, held = time.monotonic(), fleet.held()
    fleet.wait_until(lambda: not held & fleet.held())
    recovered_s = time.monotonic() - began
    fleet.wait_until(fleet.whole)
    assert recovered_s <= LEASE_S + 2 * SWEEP_S + 5 * fleet.start_s, fleet.logs()
    return recovered_s


def _jobs(fleet: Fleet) -> list[Job]:
    with fleet.queue.database.read() as session:
        return list(session.scalars(select(Job)).all())


def _counted(counts: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in sorted(counts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--photographs", type=int, default=300)
    parser.add_argument("--faults", type=int, default=24)
    parser.add_argument("--runs", type=int, default=2, help="the first with the fixed seed")
    parser.add_argument("--seed", type=int, default=FIXED_SEED)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as in tests/conftest.py
    from tests.tiny_bundle import build_tiny_bundle

    with tempfile.TemporaryDirectory() as folder:
        bundle = build_tiny_bundle(Path(folder) / "tiny")
        for number in range(asked.runs):
            seed = asked.seed if number == 0 else secrets.randbelow(10**9)
            data = Path(folder) / str(number)
            data.mkdir()
            nursery = Nursery()
            fleet = Fleet(data, bundle, nursery)
            try:
                counts = {"photographs": asked.photographs, "faults": asked.faults}
                print(run(fleet, seed=seed, **counts), flush=True)
            finally:
                fleet.close()
                nursery.close()


if __name__ == "__main__":
    main()
