from __future__ import annotations

import html
import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import delete

from captioning import jobs
from captioning.models import Worker
from captioning.queue import Queue
from tests.web.outcomes import REVISION, caption, claim, fail, start_worker
from tests.web.sending import photos


@pytest.fixture
def job(client: FlaskClient) -> str:
    """The address of a queued job that asked for three candidates."""
    options = {"num_captions": "3", "max_words": "9"}
    client.post("/", data={"images": photos(1), **options})
    (found,) = client.get("/api/v1/jobs").json["jobs"]
    page: str = found["links"]["page"]
    return page


def polled(text: str) -> str:
    """The address that a page, or what came in place of a part of it, asks for."""
    (address,) = re.findall(r'hx-get="([^"]+)"', text)
    return html.unescape(address)


def test_a_finished_job_shows_candidates_scores_and_model(
    client: FlaskClient, queue: Queue, job: str
) -> None:
    caption(queue, "a teal wall", "a wall", "a photograph")
    text = client.get(job).text
    assert '<h1 class="caption">a teal wall</h1>' in text
    assert "a photograph" in text
    assert "61 %" in text  # exp(-0.5)
    assert "-0.50" in text
    assert REVISION in text
    assert "beam, 3 candidates, at most 9 words" in text
    assert "hx-trigger" not in text


def test_an_unfinished_job_polls_until_it_changes(
    client: FlaskClient, queue: Queue, job: str
) -> None:
    page = client.get(job).text
    assert "Waiting" in page
    unchanged = client.get(polled(page))
    assert (unchanged.status_code, unchanged.data) == (204, b"")
    claim(queue)
    changed = client.get(polled(page)).text
    assert "Captioning…" in changed
    assert client.get(polled(changed)).status_code == 204


def test_the_outcome_ends_polling(client: FlaskClient, queue: Queue, job: str) -> None:
    caption(queue, "a wall")
    fragment = client.get(f"{job}/outcome?shown=r").text
    assert "a wall" in fragment
    assert "hx-trigger" not in fragment


def test_a_waiting_job_can_be_cancelled_and_retried(client: FlaskClient, job: str) -> None:
    answer = client.post(f"{job}/cancel")
    assert (answer.status_code, answer.location) == (303, job)
    assert "Cancelled" in client.get(job).text
    answer = client.post(f"{job}/retry")
    assert (answer.status_code, answer.location) == (303, job)
    assert "Waiting" in client.get(job).text


def test_a_failed_job_says_why(client: FlaskClient, queue: Queue, job: str) -> None:
    fail(queue, "The model gave up.")
    text = client.get(job).text
    assert "Failed" in text
    assert "The model gave up." in text
    assert "Try again" in text


def test_a_job_that_waits_after_a_failure_says_so(
    client: FlaskClient, queue: Queue, job: str
) -> None:
    held = claim(queue)
    with queue.database.write() as session:
        jobs.fail_or_retry(session, held.token, held.jobs[0].id, code="busy", message="Busy.")
    text = client.get(f"{job}/outcome?shown=r").text
    assert "Trying again shortly" in text
    assert "Busy." in text


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_finished_job_can_be_neither_cancelled_nor_retried(
    client: FlaskClient, queue: Queue, job: str, verb: str
) -> None:
    caption(queue, "a wall")
    answer = client.post(f"{job}/{verb}")
    assert answer.status_code == 409
    assert "is succeeded" in answer.text


@pytest.mark.parametrize("suffix", ["", "/outcome"])
def test_an_unknown_job_is_not_found(client: FlaskClient, suffix: str) -> None:
    assert client.get(f"/jobs/{'0' * 32}{suffix}").status_code == 404


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_an_unknown_job_cannot_be_changed(client: FlaskClient, verb: str) -> None:
    assert client.post(f"/jobs/{'0' * 32}/{verb}").status_code == 404


def test_a_waiting_job_says_where_it_stands(client: FlaskClient, queue: Queue) -> None:
    pages = [client.post("/", data={"images": photos(1)}).location for _ in range(4)]
    assert "before it" not in client.get(pages[0]).text
    jobs_of = client.get("/api/v1/jobs").json["jobs"]
    last = jobs_of[0]["links"]["page"]
    assert "before it" not in client.get(last).text  # nobody works on them
    start_worker(queue)
    page = client.get(last).text
    assert "3 photographs before it" in page
    caption(queue, "a wall", limit=1)
    news = client.get(polled(page))
    assert (news.status_code, news.headers["HX-Reswap"]) == (200, "none")
    assert "2 photographs before it, a few seconds left" in news.text
    assert 'hx-swap-oob="true"' in news.text
    assert "<h1" not in news.text
    caption(queue, "a wall", limit=2)
    assert "Next in the queue" in client.get(last).text
    claim(queue)
    assert 'id="place"' not in client.get(last).text


def test_a_worker_that_comes_or_goes_is_seen_on_a_page_that_is_open(
    client: FlaskClient, queue: Queue, job: str
) -> None:
    page = client.get(job).text
    assert "No worker" in page
    start_worker(queue)
    served = client.get(polled(page))
    assert "HX-Reswap" not in served.headers
    assert "No worker" not in served.text
    assert "Next in the queue" in served.text
    with queue.database.write() as session:
        session.execute(delete(Worker))
    left = client.get(polled(served.text)).text
    assert "No worker" in left
    assert 'id="place"' not in left
