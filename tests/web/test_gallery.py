from __future__ import annotations

import html
import re

import pytest
from flask.testing import FlaskClient

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


@pytest.mark.parametrize("query", ["show=secrets", "cursor=!"])
def test_a_wrong_query_is_told_so(client: FlaskClient, query: str) -> None:
    assert client.get(f"/gallery?{query}").status_code == 422
