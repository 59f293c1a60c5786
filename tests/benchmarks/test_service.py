"""Each part of the service's benchmark measures something, at its smallest size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.service import (
    alone,
    commands,
    draining,
    pages,
    polling,
    rows,
    scaling,
    soak,
    twins,
    uploads,
)
from benchmarks.service.__main__ import PARTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def columns(part: Any, found: Iterable[Any]) -> list[Any]:
    measured = list(found)
    assert measured
    for row in measured:
        assert str(row).count("|") == part.HEADER.splitlines()[0].count("|")
    return measured


def test_every_part_says_what_it_measures() -> None:
    for part in (alone, commands, draining, pages, polling, rows, scaling, twins, uploads):
        assert part.__doc__
        assert part.__name__.rpartition(".")[2] in PARTS


def test_a_queue_is_drained_beside_the_bare_loop(tiny_bundle: Path) -> None:
    found = columns(draining, draining.measure(f"tiny={tiny_bundle}", images=9, processes=1))
    assert all(row.ratio > 0 for row in found)


def test_one_photograph_goes_through_the_service(tiny_bundle: Path) -> None:
    columns(alone, alone.measure(f"tiny={tiny_bundle}", photographs=2))


def test_two_workers_drain_more_than_one() -> None:
    one, two = columns(scaling, scaling.measure((1, 2), seconds=0.2, micro_batches=3))
    assert (one.workers, two.workers) == (1, 2)


def test_tables_grow_by_sql_and_are_claimed_from() -> None:
    assert len(columns(rows, rows.measure(rows=2000, turns=2))) == 8


def test_many_twins_are_passed_over() -> None:
    columns(twins, twins.measure(twins=50, turns=2))


def test_what_a_job_asks_of_the_database_is_counted() -> None:
    for row in columns(commands, commands.measure(idle_s=1, images=8)):
        if "one" in row.subject:  # a second without any is a second well spent
            assert row.statements > 0
        else:  # the rings of those before it, of eight commands each, have been used up
            assert row.broker < 50


def test_polls_are_measured_beside_a_bare_route() -> None:
    columns(polling, polling.measure(requests=20, rounds=1))


def test_large_uploads_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SIZE_PX", (400, 300))
    columns(uploads, uploads.measure(2))


def test_script_and_style_of_each_page_are_light() -> None:
    assert all(row.assets_kb <= 60 for row in columns(pages, pages.measure()))


def test_a_soak_watches_web_and_worker(tiny_bundle: Path) -> None:
    found = columns(soak, soak.measure(0.1, f"tiny={tiny_bundle}", pause_s=0))
    assert [row.process for row in found] == ["web", "worker"]
