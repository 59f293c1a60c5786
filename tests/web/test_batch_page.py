from __future__ import annotations

import html
import re

import pytest
from flask.testing import FlaskClient

from captioning.queue import Queue
from tests.web.outcomes import caption, claim, fail, start_worker
from tests.web.sending import photos

REFRESH = '<noscript><meta http-equiv="refresh"'


@pytest.fixture
def batch(client: FlaskClient) -> str:
    """The address of a batch of three."""
    location = client.post("/", data={"images": photos(3)}).location
    assert location is not None
    return location


def polled(text: str) -> str | None:
    """What a page or fragment asks htmx to fetch next, if anything."""
    found = re.search(r'hx-get="([^"]+)" hx-trigger="every 1s"', text)
    return html.unescape(found[1]) if found else None


def cards(text: str) -> int:
    return text.count('<li class="card')


def test_an_unfinished_batch_polls_and_refreshes_without_javascript(
    client: FlaskClient, batch: str
) -> None:
    text = client.get(batch).text
    assert polled(text) is not None
    assert REFRESH in text
    assert "0 of 3 done" in text


def test_a_poll_brings_only_the_cards_that_changed(
    client: FlaskClient, queue: Queue, batch: str
) -> None:
    first = polled(client.get(batch).text)
    assert first is not None
    assert cards(client.get(first).text) == 0
    caption(queue, "a wall", limit=1)
    text = client.get(first).text
    assert cards(text) == 1
    assert "1 of 3 done" in text
    assert "a wall" in text
    second = polled(text)
    assert second is not None
    assert cards(client.get(second).text) == 0


def test_a_claimed_job_is_shown_at_work(client: FlaskClient, queue: Queue, batch: str) -> None:
    url = polled(client.get(batch).text)
    assert url is not None
    claim(queue, limit=1)
    assert "Captioning…" in client.get(url).text


def test_polling_ends_when_all_have_finished(client: FlaskClient, queue: Queue, batch: str) -> None:
    url = polled(client.get(batch).text)
    assert url is not None
    fail(queue, "The model gave up.")
    caption(queue, "a wall")
    last = client.get(url).text
    assert "hx-trigger" not in last
    assert cards(last) == 3
    assert "All 3 done, 1 failed" in last
    page = client.get(batch).text
    assert polled(page) is None
    assert REFRESH not in page


def test_a_failed_job_has_its_reason_and_can_be_tried_again(
    client: FlaskClient, queue: Queue, batch: str
) -> None:
    (job_id, *_) = fail(queue, "The model gave up.", limit=3)
    text = client.get(batch).text
    assert "The model gave up." in text
    answer = client.post(f"/jobs/{job_id}/retry", data={"from": "batch"})
    assert answer.status_code == 303
    assert answer.location == f"{batch}#job-{job_id}"
    assert "2 of 3 done" in client.get(batch).text


def test_it_says_when_no_worker_runs(client: FlaskClient, queue: Queue, batch: str) -> None:
    assert "No worker is running" in client.get(batch).text
    start_worker(queue)
    assert "No worker is running" not in client.get(batch).text


def test_what_the_browser_claims_to_show_is_not_trusted(client: FlaskClient, batch: str) -> None:
    for shown in ("", "x", "?" * 5000, "%00", "<b>"):
        answer = client.get(f"{batch}/progress", query_string={"shown": shown})
        assert answer.status_code == 200
        assert "<b>" not in answer.text


@pytest.mark.parametrize("suffix", ["", "/progress"])
def test_an_unknown_batch_is_not_found(client: FlaskClient, suffix: str) -> None:
    answer = client.get(f"/batches/{'0' * 32}{suffix}")
    assert answer.status_code == 404
    assert "There is no such batch" in answer.text


def test_an_unfinished_batch_says_what_is_left(client: FlaskClient, queue: Queue) -> None:
    start_worker(queue)
    client.post("/", data={"images": photos(3)})
    caption(queue, "a wall", limit=1)
    page = client.get(client.post("/", data={"images": photos(2)}).location).text
    words = " ".join(page.split())
    assert "0 of 2 done, a few seconds left, sharing the queue with 2 others" in words
