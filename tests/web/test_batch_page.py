from __future__ import annotations

import html
import json
import re
from typing import Any

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


def polled(text: str) -> dict[str, Any] | None:
    """What a page or fragment has htmx post next, if anything."""
    found = re.search(r'hx-post="([^"]+)" hx-vals=\'([^\']+)\' hx-trigger="every 1s"', text)
    return {"path": html.unescape(found[1]), "data": json.loads(found[2])} if found else None


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
    assert cards(client.post(**first).text) == 0
    caption(queue, "a wall", limit=1)
    text = client.post(**first).text
    assert cards(text) == 1
    assert "1 of 3 done" in text
    assert "a wall" in text
    second = polled(text)
    assert second is not None
    assert cards(client.post(**second).text) == 0


def test_a_claimed_job_is_shown_at_work(client: FlaskClient, queue: Queue, batch: str) -> None:
    poll = polled(client.get(batch).text)
    assert poll is not None
    claim(queue, limit=1)
    assert "Captioning…" in client.post(**poll).text


def test_polling_ends_when_all_have_finished(client: FlaskClient, queue: Queue, batch: str) -> None:
    poll = polled(client.get(batch).text)
    assert poll is not None
    fail(queue, "The model gave up.")
    caption(queue, "a wall")
    last = client.post(**poll).text
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


def test_what_is_left_is_counted_and_cancelled(
    client: FlaskClient, queue: Queue, batch: str
) -> None:
    caption(queue, "a wall", limit=1)
    assert "1 of 3 done · 2 left" in client.get(batch).text
    assert client.post(f"{batch}/cancel").location == batch
    text = client.get(batch).text
    assert text.count("Cancelled") == 2
    assert "Cancel the rest" not in text
    assert "a wall" in text


def test_all_that_failed_is_tried_again(client: FlaskClient, queue: Queue, batch: str) -> None:
    fail(queue, "No.", limit=2)
    caption(queue, "a wall")
    assert "Try the failed again" in client.get(batch).text
    assert client.post(f"{batch}/retry").location == batch
    text = client.get(batch).text
    assert "1 of 3 done" in text
    assert "a wall" in text
    assert client.post(f"{batch}/retry").status_code == 303  # by somebody who was late


def test_what_can_be_done_with_all_follows_the_outcomes(
    client: FlaskClient, queue: Queue, batch: str
) -> None:
    poll = polled(client.get(batch).text)
    assert poll is not None
    assert 'id="batch-actions"' not in client.post(**poll).text
    caption(queue, "a wall")
    text = client.post(**poll).text
    assert 'id="batch-actions" hx-swap-oob="true"' in text
    links = re.findall(r'href="(/api/v1[^"]+)"', text)
    assert [link.rpartition(".")[2] for link in links] == ["csv", "jsonl", "zip"]
    assert [client.get(link).status_code for link in links] == [200] * 3


def test_texts_are_there_to_be_copied(client: FlaskClient, queue: Queue, batch: str) -> None:
    client.patch(f"/api/v1/jobs/{caption(queue, 'a wall')[0]}", json={"caption": 'a "wall" <b>'})
    card = re.search(
        r'<li class="card[^>]+data-text="([^"]*)" data-alt="([^"]*)"', client.get(batch).text
    )
    assert card is not None
    text, alt = map(html.unescape, card.groups())
    assert text == 'a "wall" <b>'
    assert alt == 'alt="a &quot;wall&quot; &lt;b&gt;"'


def test_a_page_that_shows_deleted_cards_is_loaded_again(
    client: FlaskClient, queue: Queue, batch: str
) -> None:
    poll = polled(client.get(batch).text)
    assert poll is not None
    (job_id,) = caption(queue, "a wall", limit=1)
    client.delete(f"/api/v1/jobs/{job_id}")
    assert client.post(**poll).headers["HX-Refresh"] == "true"
    fresh = polled(client.get(batch).text)
    assert fresh is not None
    assert "HX-Refresh" not in client.post(**fresh).headers


def test_it_says_when_no_worker_runs(client: FlaskClient, queue: Queue, batch: str) -> None:
    assert "No worker is running" in client.get(batch).text
    start_worker(queue)
    assert "No worker is running" not in client.get(batch).text


def test_the_address_that_is_polled_is_as_short_for_ten_thousand(
    client: FlaskClient, batch: str
) -> None:
    """gunicorn's request line ends at 4,094 bytes, many a proxy's at 8,192."""
    poll = polled(client.get(batch).text)
    assert poll == {"path": f"{batch}/progress", "data": {"shown": "qqq"}}
    answer = client.post(poll["path"], data={"shown": "q" * 10_000})
    assert answer.headers["HX-Refresh"] == "true"


def test_what_the_browser_claims_to_show_is_not_trusted(client: FlaskClient, batch: str) -> None:
    for shown in ("", "x", "?" * 5000, "%00", "<b>"):
        answer = client.post(f"{batch}/progress", data={"shown": shown})
        assert answer.status_code == 200
        assert "<b>" not in answer.text


@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("POST", "/progress")])
def test_an_unknown_batch_is_not_found(client: FlaskClient, method: str, suffix: str) -> None:
    answer = client.open(f"/batches/{'0' * 32}{suffix}", method=method)
    assert answer.status_code == 404
    assert "There is no such batch" in answer.text


def test_an_unfinished_batch_says_what_is_left(client: FlaskClient, queue: Queue) -> None:
    start_worker(queue)
    client.post("/", data={"images": photos(3)})
    caption(queue, "a wall", limit=1)
    page = client.get(client.post("/", data={"images": photos(2)}).location).text
    words = " ".join(page.split())
    assert "0 of 2 done · 2 left, a few seconds to go, sharing the queue with 2 others" in words
