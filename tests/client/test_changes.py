"""What the clients can do with jobs and batches once they are there, against a real server."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from captioning import AsyncClient, Client
from captioning.client import Batch, Job
from captioning.errors import (
    BatchNotFound,
    ChangedSince,
    InvalidOption,
    JobNotFound,
    NotFound,
    WrongState,
)
from captioning.queue import Queue, Upload
from tests import servers
from tests.client.lossy import LosesAnswers
from tests.client.test_client import NONE_AT_ALL, named
from tests.factories import photo
from tests.web.outcomes import caption, fail

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_waits(queue: Queue) -> None:
    """What another test has left would be captioned in place of what this one hands in."""
    servers.empty(queue.database)


def batch_of(client: Client, *names: str) -> Batch:
    outcomes = list(client.submit_many([named(name) for name in names]))
    (batch_id,) = {outcome.job.batch_id for outcome in outcomes if outcome.job}
    assert batch_id
    return client.batch(batch_id)


@pytest.mark.usefixtures("worker")
def test_a_caption_is_edited_and_taken_back(url: str) -> None:
    with Client(url) as client:
        job = client.caption(named("cat.jpg"))
        assert (job.edited, job.decorative, job.alt) == (False, False, "a photo of cat.jpg")
        assert job.image.filename == "cat.jpg"
        job = client.edit(job.id, caption="Our  cat.")
        assert (job.text, job.edited) == ("Our cat.", True)
        job = client.edit(job.id, decorative=True)
        assert (job.text, job.alt, job.decorative) == ("Our cat.", "", True)
        assert client.edit(job.id) == job == client.job(job.id)
        job = client.edit(job.id, caption=None, decorative=False)
        assert (job.text, job.edited, job.alt) == (job.captions[0].text, False, job.text)
        with pytest.raises(InvalidOption):
            client.edit(job.id, caption=" ")


@pytest.mark.usefixtures("worker")
def test_an_edit_of_what_has_changed_since_it_was_read_is_refused(url: str) -> None:
    with Client(url) as client:
        read = client.caption(named("cat.jpg"))
        (listed,) = client.jobs()
        ours = client.edit(listed, caption="Our cat.")
        with pytest.raises(ChangedSince, match=read.id):
            client.edit(read, caption="Their cat.")
        assert client.job(read.id) == ours
        assert client.edit(ours, decorative=True).text == "Our cat."
        assert client.edit(read.id, caption="Their cat.").text == "Their cat."


@pytest.mark.parametrize("lost", ["PATCH", "none"])
def test_a_change_between_reading_and_writing_is_not_overwritten(url: str, lost: str) -> None:
    """The service is who says so: what the client has looked at is a moment old."""

    class Meanwhile(LosesAnswers):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "PATCH":
                client.edit(job.id, caption="Ours.")
            return super().handle_request(request)

    with Client(url) as client, Client(url, transport=Meanwhile(lost)) as late:
        job = client.submit(photo())
        with pytest.raises(ChangedSince):
            late.edit(job, caption="Theirs.")
        assert client.job(job.id).text == "Ours."


@pytest.mark.parametrize(
    ("change", "text"),
    [({"caption": "Our  cat."}, "Our cat."), ({"caption": None}, ""), ({}, "A cat.")],
    ids=["edit", "take back", "mark"],
)
def test_an_edit_whose_answer_is_lost_is_no_error(
    url: str, change: dict[str, str], text: str
) -> None:
    way = LosesAnswers("PATCH")
    with Client(url) as client, Client(url, transport=way) as unlucky:
        job = client.edit(client.submit(photo()), caption="A cat.")
        job = unlucky.edit(job, decorative=True, **change)
    assert (way.lost, job.text, job.decorative) == (1, text, True)


def test_a_job_is_cancelled_retried_and_deleted(url: str) -> None:
    with Client(url) as client:
        job = client.submit(photo())
        with pytest.raises(WrongState):
            client.retry(job.id)
        assert client.cancel(job.id).status == "cancelled"
        with pytest.raises(WrongState):
            client.cancel(job.id)
        assert client.retry(job.id).status == "queued"
        client.delete(job.id)
        with pytest.raises(JobNotFound):
            client.delete(job.id)


def test_a_batch_is_cancelled_retried_and_deleted(url: str, queue: Queue) -> None:
    with Client(url) as client:
        batch = batch_of(client, "a.jpg", "b.jpg", "c.jpg")
        caption(queue, "a wall", limit=1)
        fail(queue, "No.")
        batch = client.cancel_batch(batch.id)
        assert [job.status for job in batch.jobs] == ["succeeded", "failed", "cancelled"]
        batch = client.retry_batch(batch.id)
        assert [job.status for job in batch.jobs] == ["succeeded", "queued", "cancelled"]
        client.delete_batch(batch.id)
        with pytest.raises(BatchNotFound):
            client.batch(batch.id)
        with pytest.raises(BatchNotFound):
            client.delete_batch(batch.id)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("POST", lambda client, job: client.cancel(job.id).status == "cancelled"),
        ("POST", lambda client, job: client.cancel_batch(job.batch_id).jobs[0].status.finished),
        ("DELETE", lambda client, job: client.delete(job.id) is None),
        ("DELETE", lambda client, job: client.delete_batch(job.batch_id) is None),
    ],
    ids=["cancel", "cancel batch", "delete", "delete batch"],
)
def test_a_change_whose_answer_is_lost_is_no_error(
    url: str, method: str, change: Callable[[Client, Job], bool]
) -> None:
    way = LosesAnswers(method)
    with Client(url) as client, Client(url, transport=way) as unlucky:
        (job,) = batch_of(client, "a.jpg").jobs
        assert change(unlucky, job)
    assert way.lost == 1


def test_a_retry_whose_answer_is_lost_is_no_error(url: str) -> None:
    way = LosesAnswers("POST")
    with Client(url) as client, Client(url, transport=way) as unlucky:
        job = client.submit(photo())
        client.cancel(job.id)
        assert unlucky.retry(job.id).status == "queued"
        client.cancel(job.id)
    assert way.lost == 1


@pytest.mark.usefixtures("worker")
def test_jobs_are_found_by_what_is_known_of_them(url: str) -> None:
    with Client(url) as client:
        job = client.caption(named("zebra.jpg"))
        before, after = (job.created_at + timedelta(seconds=s) for s in (-60, 60))
        client.edit(job.id, caption="Striped in the savannah.")

        def found(**filters: object) -> bool:
            return job.id in {each.id for each in client.jobs(**filters)}  # type: ignore[arg-type]

        assert found(text="savannah STRIPED", status="succeeded", model=job.model)
        assert found(created_after=before, created_before=after)
        assert not found(created_after=after)
        assert not found(created_before=before)
        assert not found(text="savannah tiger")
        assert not found(model="another")
        assert list(client.jobs(batch=NONE_AT_ALL)) == []
        with pytest.raises(InvalidOption):
            next(client.jobs(status="lost"))
        with pytest.raises(InvalidOption):
            next(client.jobs(created_after=datetime(2026, 1, 1)))  # noqa: DTZ001  (the point)
        assert next(client.jobs(created_before=datetime(1980, 1, 1, tzinfo=UTC)), None) is None


def test_a_batch_is_taken_home(url: str, queue: Queue) -> None:
    with Client(url) as client:
        batch = batch_of(client, "a.jpg", "b.jpg")
        caption(queue, "a wall")
        table = client.export(batch.id, "csv").decode("utf-8-sig")
        assert [row["caption"] for row in csv.DictReader(io.StringIO(table))] == ["a wall"] * 2
        lines = client.export(batch.id, "jsonl").splitlines()
        assert [json.loads(line)["id"] for line in lines] == [job.id for job in batch.jobs]
        with zipfile.ZipFile(io.BytesIO(client.export(batch.id, "zip"))) as archive:
            assert archive.namelist() == ["a.txt", "b.txt"]
        with pytest.raises(BatchNotFound):
            client.export(NONE_AT_ALL, "csv")


def test_ids_are_no_paths(url: str) -> None:
    with Client(url) as client:
        for odd in ("../models", "a?wait=1", "ü/", "a#b", "%2e%2e"):
            with pytest.raises(NotFound):
                client.job(odd)


def test_the_same_from_asyncio(url: str) -> None:
    async def use() -> None:
        async with AsyncClient(url) as client:
            photos = [named("a.jpg"), Upload("b.jpg", b""), named("c.jpg")]
            outcomes = [outcome async for outcome in client.submit_many(photos)]
            assert [outcome.job is None for outcome in outcomes] == [False, True, False]
            job = outcomes[0].job
            assert job
            assert job.batch_id
            assert (await client.edit(job, caption="Ours.")).text == "Ours."
            with pytest.raises(ChangedSince):
                await client.edit(job, caption="Theirs.")
            assert (await client.cancel(job.id)).status == "cancelled"
            assert (await client.retry(job.id)).status == "queued"
            batch = await client.cancel_batch(job.batch_id)
            assert {job.status for job in batch.jobs} == {"cancelled"}
            assert batch.rejected[0].filename == "b.jpg"
            assert await client.retry_batch(batch.id) == await client.batch(batch.id)
            assert b"Ours." in await client.export(batch.id, "jsonl")
            assert [each.id async for each in client.jobs(text="ours", batch=batch.id)] == [job.id]
            await client.delete(job.id)
            await client.delete_batch(batch.id)
            with pytest.raises(BatchNotFound):
                await client.batch(batch.id)

    asyncio.run(use())
