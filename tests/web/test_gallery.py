from __future__ import annotations

import html
import re
from datetime import datetime

import pytest
from flask.testing import FlaskClient

from captioning import queries
from captioning.queue import Queue
from tests.web.outcomes import caption, fail
from tests.web.sending import photos
from web.pages.gallery import PAGE


def test_an_empty_gallery_says_so(client: FlaskClient) -> None:
    assert "Nothing here yet" in client.get("/gallery").text
    assert "Nothing has failed" in client.get("/gallery?show=failed").text


def test_captioned_failed_and_waiting_jobs_have_their_shelves(
    client: FlaskClient, queue: Queue
) -> None:
    client.post("/", data={"images": photos(3)})
    caption(queue, "a wall", limit=1)
    fail(queue, "No.")
    names = {"captioned": {0}, "failed": {1}, "all": {0, 1, 2}}
    for shelf, shown in names.items():
        text = client.get(f"/gallery?show={shelf}").text
        assert {i for i in range(3) if f"photo-{i}.jpg" in text} == shown


def test_it_is_read_page_by_page_from_the_newest(client: FlaskClient, queue: Queue) -> None:
    count = PAGE + 3
    client.post("/", data={"images": photos(count)})
    caption(queue, "a wall")
    first = client.get("/gallery").text
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older is not None
    second = client.get(html.unescape(older[1])).text
    shown = [re.findall(r'class="filename">photo-(\d+)', text) for text in (first, second)]
    assert [int(i) for page in shown for i in page] == list(range(count))[::-1]
    assert 'rel="next"' not in second
    assert "Newest" in second


@pytest.fixture
def cats_and_dogs(client: FlaskClient, queue: Queue) -> list[str]:
    """Two photographs of cats, then two of dogs."""
    client.post("/", data={"images": photos(4)})
    return caption(queue, "a cat", limit=2) + caption(queue, "a dog")


def shown(client: FlaskClient, **query: str) -> set[int]:
    text = client.get("/gallery", query_string=query).text
    return {int(i) for i in re.findall(r'class="filename">photo-(\d+)', text)}


def test_captions_are_searched_with_their_edits(
    client: FlaskClient, cats_and_dogs: list[str]
) -> None:
    client.patch(f"/api/v1/jobs/{cats_and_dogs[0]}", json={"caption": "Mia at home"})
    assert shown(client, q="dog") == {2, 3}
    assert shown(client, q="mia") == {0}
    assert shown(client, q="cat") == {0, 1}
    assert "Nothing matches" in client.get("/gallery?q=horse").text


def test_it_is_filtered_by_state_model_and_day(
    client: FlaskClient, queue: Queue, cats_and_dogs: list[str]
) -> None:
    today = f"{queue_day(queue, cats_and_dogs[0]):%Y-%m-%d}"
    assert shown(client, **{"from": today, "to": today}) == {0, 1, 2, 3}
    assert shown(client, to="2020-01-01") == shown(client, **{"from": "2100-01-01"}) == set()
    assert shown(client, model="bundled") == {0, 1, 2, 3}
    assert shown(client, model="other") == shown(client, show="waiting") == set()
    client.post("/", data={"images": photos(1)})
    assert shown(client, show="waiting") == {0}


def queue_day(queue: Queue, job_id: str) -> datetime:
    with queue.database.read() as session:
        return queries.get_job(session, job_id).created_at


def test_filters_stay_from_page_to_page(
    client: FlaskClient, cats_and_dogs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.pages.gallery.PAGE", 1)
    first = client.get("/gallery?q=dog&from=2020-01-01").text
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older is not None
    second = client.get(html.unescape(older[1])).text
    assert "photo-2" in second
    assert 'rel="next"' not in second
    assert 'value="dog"' in second


def test_what_is_searched_for_is_not_taken_for_html(client: FlaskClient) -> None:
    text = client.get("/gallery", query_string={"q": '"><b>', "model": "<i>"}).text
    assert "<b>" not in text
    assert "<i>" not in text


@pytest.mark.parametrize(
    "query",
    [
        "show=secrets",
        "cursor=!",
        "from=yesterday",
        "to=0001-01-01",
        "to=9999-12-31",
        f"q={'x' * 201}",
    ],
)
def test_a_wrong_query_is_told_so(client: FlaskClient, query: str) -> None:
    assert client.get(f"/gallery?{query}").status_code == 422
