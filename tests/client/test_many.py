"""More photographs than one upload may hold, against real servers with small limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from captioning import Client, queries
from captioning.client import Outcome, Progress, many
from captioning.errors import CaptioningError, ImageEmpty, QueueFull, UnknownModel
from captioning.queue import Photo, Queue, Upload
from tests.client.conftest import served
from tests.client.test_client import named
from tests.factories import photo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def few(queue: Queue) -> Iterator[str]:
    """A service that takes five photographs at a time."""
    with served(queue.settings, CAPTIONING_MAX_IMAGES_PER_UPLOAD="5") as url:
        yield url


@pytest.fixture(scope="module")
def light(queue: Queue) -> Iterator[str]:
    """A service that takes 3 MB at a time."""
    with served(queue.settings, CAPTIONING_MAX_UPLOAD_BYTES="3000000") as url:
        yield url


def batches(client: Client, photos: list[Photo], told: list[Progress]) -> list[int]:
    """How many jobs each batch has, in the order of the batches, when all are handed in."""
    outcomes = list(client.submit_many(photos, on_progress=told.append))
    assert [outcome.photo for outcome in outcomes] == photos
    return list(Counter(each.job.batch_id for each in outcomes if each.job).values())


def test_more_than_one_upload_holds_go_in_several(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "BATCH_PHOTOS", 10)
    photos: list[Photo] = [named(f"{number}.jpg") for number in range(23)]
    photos[12] = Upload("empty.jpg", b"")
    told: list[Progress] = []
    with Client(url) as client:
        assert batches(client, photos, told) == [10, 9, 3]
    assert told == [Progress(23, 10, 0), Progress(23, 20, 1), Progress(23, 23, 1)]


def test_a_full_batch_is_one_upload(url: str) -> None:
    with Client(url) as client:
        assert batches(client, [photo()] * 101, []) == [100, 1]


def test_where_the_service_takes_fewer_there_are_more_uploads(few: str) -> None:
    photos: list[Photo] = [named(f"{number}.jpg") for number in range(18)]
    photos[3] = Upload("empty.jpg", b"")
    with Client(few) as client:
        sizes = batches(client, photos, [])
        assert (sum(sizes), max(sizes) <= 5) == (17, True)
        outcomes = list(client.submit_many(photos))
        names = [outcome.job and outcome.job.image.filename for outcome in outcomes]
        assert names == [None if i == 3 else f"{i}.jpg" for i in range(18)]
        assert isinstance(outcomes[3].error, ImageEmpty)


@pytest.mark.usefixtures("worker")
def test_captions_come_from_such_a_service_too(few: str) -> None:
    with Client(few) as client:
        outcomes = list(client.caption_many([named(f"{number}.jpg") for number in range(12)]))
    assert [outcome.text for outcome in outcomes] == [f"a photo of {i}.jpg" for i in range(12)]


def test_where_the_service_takes_fewer_bytes_there_are_more_uploads(light: str) -> None:
    heavy = photo() + bytes(1_200_000)
    photos: list[Photo] = [Upload(f"{number}.jpg", heavy) for number in range(5)]
    photos.append(Upload("whole.jpg", photo() + bytes(4_000_000)))
    with Client(light, retries=1) as client:
        outcomes = list(client.submit_many(photos))
    assert [outcome.job is not None for outcome in outcomes] == [True] * 5 + [False]
    assert isinstance(outcomes[5].error, CaptioningError)
    assert "413" in str(outcomes[5].error) or "large" in str(outcomes[5].error)


@pytest.fixture
def nearly_full(queue: Queue) -> Iterator[str]:
    """A service that takes five photographs at a time, while none of ten is left to caption."""
    with queue.database.read() as session:
        waiting = queries.count_queued(session, at_most=1000)
    limits = {"MAX_IMAGES_PER_UPLOAD": "5", "MAX_QUEUED_JOBS": str(waiting + 10)}
    more = {f"CAPTIONING_{name}": value for name, value in limits.items()}
    with served(queue.settings, **more) as url:
        yield url


@pytest.mark.parametrize("method", ["caption_many", "submit_many"])
@pytest.mark.parametrize("group", [5, 20])
def test_the_outcomes_of_what_was_handed_in_come_before_the_refusal_of_the_rest(
    nearly_full: str, monkeypatch: pytest.MonkeyPatch, method: str, group: int
) -> None:
    """Of whole groups, and of the part of one that was sent in smaller parts."""
    monkeypatch.setattr(many, "GROUP_PHOTOS", group)
    monkeypatch.setattr(many, "BATCH_PHOTOS", group)
    photos: list[Photo] = [named(f"{number}.jpg") for number in range(20)]
    photos[2] = Upload("empty.jpg", b"")
    options = {"timeout_s": 0.1} if method == "caption_many" else {}
    outcomes: list[Outcome] = []
    with Client(nearly_full, retries=0) as client:
        before = [job.id for job in client.jobs()]
        with pytest.raises(QueueFull):
            outcomes.extend(getattr(client, method)(photos, **options))
        handed_in = [job.id for job in client.jobs()][: -len(before) or None][::-1]
        for job_id in handed_in:
            client.cancel(job_id)
    assert [outcome.photo for outcome in outcomes] == photos[:15]
    assert [outcome.job.id for outcome in outcomes if outcome.job] == handed_in
    assert isinstance(outcomes[2].error, ImageEmpty)


def test_what_is_wrong_with_all_is_raised(url: str) -> None:
    with Client(url) as client, pytest.raises(UnknownModel):
        next(client.submit_many([photo()] * 3, model="nobody"))
