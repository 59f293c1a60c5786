"""Deletion from the pages: it asks first, and takes away what was meant and nothing else."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from captioning.queue import Queue
from tests.web.outcomes import caption, fail
from tests.web.sending import NOTHING, kept, photos

SURE = re.compile(r'<form class="actions sure" method="post" action="([^"]+)">(.+?)</form>', re.S)


@pytest.fixture
def batch(client: FlaskClient) -> str:
    """The address of a batch of three."""
    return str(client.post("/", data={"images": photos(3)}).location)


@pytest.fixture
def jobs(queue: Queue, batch: str) -> list[str]:
    """The ids of its jobs: two are captioned, one has failed."""
    return caption(queue, "a wall", limit=2) + fail(queue, "No.")


def confirmed(client: FlaskClient, path: str, **query: Any) -> str | None:
    """Ask for a page of confirmation and send its form; returns where that leads."""
    page = client.get(path, query_string=query or None).text
    form = re.search(
        r'<form class="actions sure" method="post" action="([^"]+)">(.+?)</form>', page, re.S
    )
    assert form is not None
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form[2]):
        fields.setdefault(name, []).append(html.unescape(value))
    answer = client.post(form[1], data=fields)
    assert answer.status_code == 303
    return answer.location


def left(client: FlaskClient) -> set[str]:
    return {job["id"] for job in client.get("/api/v1/jobs?limit=100").json["jobs"]}


def test_one_photograph_is_deleted_and_the_others_are_shown(
    client: FlaskClient, batch: str, jobs: list[str]
) -> None:
    assert confirmed(client, f"/jobs/{jobs[0]}/delete") == batch
    assert left(client) == set(jobs[1:])
    assert f"/jobs/{jobs[0]}" not in client.get(batch).text


def test_with_the_last_photograph_its_batch_is_gone(
    client: FlaskClient, queue: Queue, batch: str, jobs: list[str]
) -> None:
    locations = [confirmed(client, f"/jobs/{job_id}/delete") for job_id in jobs]
    assert locations == [batch, batch, "/gallery"]
    assert kept(queue) == NOTHING


def test_a_batch_is_deleted_whole(client: FlaskClient, queue: Queue, batch: str) -> None:
    assert "Delete 3 photographs?" in client.get(f"{batch}/delete").text
    assert confirmed(client, f"{batch}/delete") == "/gallery"
    assert client.get(batch).status_code == 404
    assert kept(queue) == NOTHING


def test_asking_deletes_nothing(client: FlaskClient, batch: str, jobs: list[str]) -> None:
    for path in (f"/jobs/{jobs[0]}/delete", f"{batch}/delete", "/gallery/delete?all=yes&show=all"):
        assert client.get(path).status_code == 200
    assert left(client) == set(jobs)


def test_those_that_were_ticked_are_deleted(client: FlaskClient, jobs: list[str]) -> None:
    where = confirmed(client, "/gallery/delete", job=jobs[1:], show="all", q="")
    assert where == "/gallery?show=all"
    assert left(client) == {jobs[0]}


def test_all_that_match_are_deleted(client: FlaskClient, jobs: list[str]) -> None:
    confirmed(client, "/gallery/delete", all="yes", q="wall")
    assert left(client) == {jobs[2]}
    confirmed(client, "/gallery/delete", all="yes", show="failed")
    assert left(client) == set()


def test_what_arrives_after_the_question_is_not_meant(client: FlaskClient, jobs: list[str]) -> None:
    page = client.get("/gallery/delete?all=yes&show=all").text
    upto = re.search(r'name="upto" value="(\w+)"', page)
    assert upto is not None
    client.post("/", data={"images": photos(1)})
    client.post("/gallery/delete", data={"all": "yes", "show": "all", "upto": upto[1]})
    assert len(left(client) - set(jobs)) == 1
    assert not left(client) & set(jobs)


def test_many_are_deleted_in_parts_each_of_which_asks(
    client: FlaskClient, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.pages.deleting.AT_ONCE", 2)
    where = confirmed(client, "/gallery/delete", all="yes", show="all")
    assert where is not None
    assert where.startswith("/gallery/delete?")
    assert left(client) == {jobs[0]}
    assert confirmed(client, where) == "/gallery?show=all"
    assert left(client) == set()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_where_nothing_was_ticked_nothing_is_deleted(
    client: FlaskClient, jobs: list[str], method: str
) -> None:
    for sent in ({}, {"job": "0" * 32}, {"job": "'"}, {"q": "wall"}):
        answer = client.open("/gallery/delete", method=method, query_string=sent)
        assert answer.status_code == 303
    assert left(client) == set(jobs)


def test_a_filter_that_is_none_deletes_nothing(client: FlaskClient, jobs: list[str]) -> None:
    for sent in ({"show": "secrets"}, {"from": "?"}, {"upto": "'", "show": "all"}):
        assert client.post("/gallery/delete", data={"all": "yes", **sent}).status_code in (303, 422)
    assert left(client) == set(jobs)


@pytest.mark.parametrize("path", [f"/jobs/{'0' * 32}", f"/batches/{'0' * 32}"])
def test_what_is_not_there_is_not_found(client: FlaskClient, path: str) -> None:
    assert client.get(f"{path}/delete").status_code == 404
    assert client.post(f"{path}/delete").status_code == 404
