"""`Client` and `AsyncClient` against a real server process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from captioning import AsyncClient, Client, webhooks
from captioning.client import CaptioningFailed, Job, Progress, ServiceUnreachable, TimedOut, steps
from captioning.errors import (
    ImageEmpty,
    ImageUnreadable,
    ImageUrlRefused,
    InvalidOption,
    JobNotFound,
    NoImage,
    TooManyImages,
    UnknownModel,
    UnsupportedImageType,
    WebhookUrlRefused,
)
from captioning.models import JobStatus
from captioning.queue import Photo, Queue, Upload
from tests.acceptance.service import free_port
from tests.client.lossy import LosesAnswers
from tests.factories import photo
from tests.sites import Answer, Site, always, respond

pytestmark = pytest.mark.slow

NONE_AT_ALL = "0" * 32


def named(name: str) -> Upload:
    return Upload(name, photo())


@pytest.mark.usefixtures("worker")
def test_one_photograph(url: str, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(photo())
    with Client(url) as client:
        job = client.caption(path, num_captions=2, max_words=9)
        assert job.text == "a photo of cat.jpg"
        assert [caption.text for caption in job.captions] == [job.text, "a photo"]
        assert (job.status, job.num_captions, job.max_words) == ("succeeded", 2, 9)
        assert client.job(job.id) == job
        assert client.caption(Image.new("RGB", (9, 9))).text == "a photo of photograph.png"
        assert client.caption(photo()).text == "a photo of photograph"
        with path.open("rb") as file:
            assert client.caption(file).text == job.text


@pytest.mark.usefixtures("worker", "here_is_public")
def test_one_by_its_address(url_here: str, site: Callable[[Answer], Site]) -> None:
    target = site(always(respond("200 OK", photo())))

    async def use() -> Job:
        async with AsyncClient(url_here) as client:
            return await client.caption(image_url=f"{target.url}/dog.jpg")

    with Client(url_here) as client:
        job = client.caption(image_url=f"{target.url}/photos/cat.jpg?size=l", max_words=9)
        assert (job.text, job.max_words) == ("a photo of cat.jpg", 9)
        assert client.submit(image_url=f"{target.url}/a.jpg").image.filename == "a.jpg"
        with pytest.raises(TooManyImages):
            client.submit(photo(), image_url=target.url)
        with pytest.raises(NoImage):
            client.submit()
    assert len(target.asked) == 2
    assert asyncio.run(use()).text == "a photo of dog.jpg"


def test_an_address_that_is_not_public_is_refused(url: str) -> None:
    with Client(url) as client, pytest.raises(ImageUrlRefused):
        client.submit(image_url="http://127.0.0.1/cat.jpg")


@pytest.mark.usefixtures("worker")
def test_who_is_to_be_told_is_said_when_submitting(url: str, queue: Queue) -> None:
    with Client(url) as client:
        job = client.submit(photo(), webhook_url="https://receiver.example/")
        client.wait(job.id)
        with pytest.raises(WebhookUrlRefused):
            client.submit(photo(), webhook_url="http://10.0.0.1/")
    with queue.database.read() as session:
        (delivery,) = webhooks.list_deliveries(session, limit=9, job_id=job.id)
    assert delivery.url == "https://receiver.example/"


@pytest.mark.usefixtures("worker")
def test_many_photographs_come_in_order_each_with_its_outcome(url: str) -> None:
    photos: list[Photo] = [named(f"{number}.jpg") for number in range(45)]
    bad: dict[int, tuple[Photo, type]] = {
        3: (Upload("same.jpg", b""), ImageEmpty),
        4: (Upload("same.jpg", b"a text"), UnsupportedImageType),
        21: ("/no/such/file.jpg", NoImage),
        44: (named("fail.jpg"), CaptioningFailed),
    }
    for place, (item, _) in bad.items():
        photos[place] = item
    told: list[Progress] = []
    with Client(url) as client:
        outcomes = list(client.caption_many(photos, on_progress=told.append))
    assert [outcome.photo for outcome in outcomes] == photos
    for place, outcome in enumerate(outcomes):
        if place in bad:
            assert type(outcome.error) is bad[place][1]
        else:
            assert (outcome.text, outcome.error) == (f"a photo of {place}.jpg", None)
    assert told[-1] == Progress(45, 45, 45)
    assert told == sorted(told, key=lambda progress: (progress.sent, progress.finished))


def test_a_group_of_bad_files_only(url: str) -> None:
    with Client(url) as client:
        (one, two) = client.caption_many([b"", b"a text"])
    assert (type(one.error), type(two.error)) == (ImageEmpty, UnsupportedImageType)


def test_problems_are_the_services_own_exceptions(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(UnknownModel, match="nobody"):
            client.submit(photo(), model="nobody")
        with pytest.raises(InvalidOption):
            client.submit(photo(), num_captions=99)
        with pytest.raises(UnsupportedImageType):
            client.submit(b"a text")
        with pytest.raises(ImageUnreadable):
            client.submit(photo((400, 300))[:800])
        with pytest.raises(JobNotFound):
            client.job(NONE_AT_ALL)
        with pytest.raises(JobNotFound):
            client.wait(NONE_AT_ALL)


def test_waiting_ends_when_the_time_is_up(url: str) -> None:
    with Client(url) as client:
        job = client.submit(photo())
        standing = client.job(job.id).queue
        assert standing
        assert standing.place >= 1
        assert (standing.workers_online, standing.expected_s) == (False, None)
        assert client.wait(job.id, timeout_s=0.2).status == JobStatus.QUEUED
        with pytest.raises(TimedOut) as caught:
            client.caption(photo(), timeout_s=0.1)
        assert caught.value.job.status == JobStatus.QUEUED
        (outcome,) = client.caption_many([photo()], timeout_s=0.1)
        assert isinstance(outcome.error, TimedOut)


@pytest.mark.usefixtures("worker")
def test_a_job_that_fails_is_an_error_that_holds_it(url: str) -> None:
    with Client(url) as client, pytest.raises(CaptioningFailed, match=r"No\.") as caught:
        client.caption(named("fail.jpg"))
    assert caught.value.job.status == JobStatus.FAILED


def test_jobs_are_listed_over_all_pages(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PAGE", 10)
    with Client(url) as client:
        before = [job.id for job in client.jobs()]
        sent = [client.submit(photo()).id for _ in range(25)]
        assert [job.id for job in client.jobs()] == sent[::-1] + before
        assert [job.id for job in islice(client.jobs(status="queued"), 25)] == sent[::-1]
        assert not {job.id for job in client.jobs(status=JobStatus.SUCCEEDED)} & set(sent)


def test_an_upload_whose_answer_is_lost_makes_one_job(url: str) -> None:
    way = LosesAnswers("POST")
    with Client(url) as client, Client(url, transport=way) as unlucky:
        before = len(list(client.jobs()))
        job = unlucky.submit(photo())
        assert way.lost == 1
        assert len(list(client.jobs())) == before + 1
        assert client.job(job.id).created_at == job.created_at


def test_nobody_there_is_said() -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}", retries=0) as client,
        pytest.raises(ServiceUnreachable, match="refused"),
    ):
        client.submit(photo())


@pytest.mark.usefixtures("worker")
def test_the_same_from_asyncio(url: str) -> None:
    async def use() -> None:
        async with AsyncClient(url) as client:
            one, two = await asyncio.gather(
                client.caption(named("a.jpg")), client.caption(named("b.jpg"))
            )
            assert (one.text, two.text) == ("a photo of a.jpg", "a photo of b.jpg")
            photos = [named("c.jpg"), Upload("d.jpg", b"")]
            outcomes = [outcome async for outcome in client.caption_many(photos)]
            assert outcomes[0].text == "a photo of c.jpg"
            assert isinstance(outcomes[1].error, ImageEmpty)
            listed = [job.id async for job in client.jobs()]
            assert {one.id, two.id} < set(listed)
            submitted = await client.submit(named("e.jpg"))
            assert (await client.wait(submitted.id)).text == "a photo of e.jpg"
            assert (await client.job(submitted.id)).status == JobStatus.SUCCEEDED
            with pytest.raises(NoImage):
                await client.caption("/no/such/file.jpg")

    asyncio.run(use())
