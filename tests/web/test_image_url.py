"""An image by its address, in the API and on the page."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from captioning import fetching
from captioning.errors import ImageUnfetchable
from captioning.queue import Queue, Upload
from captioning.settings import Settings
from tests.factories import photo
from tests.web.sending import NOTHING, kept, part
from web import create_app

URL = "https://photos.example/cat.jpg"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were fetched. tests/captioning/test_fetching.py is about how."""
    urls: list[str] = []

    def fetch(url: str, *, max_bytes: int) -> Upload:
        urls.append(url)
        if "away" in url:
            raise ImageUnfetchable("It is away.")
        return Upload("cat.jpg", b"a text" if "text" in url else photo())

    monkeypatch.setattr(fetching, "fetch", fetch)
    return urls


@pytest.mark.parametrize("kind", ["json", "data"])
def test_the_api_takes_an_address(client: FlaskClient, fetched: list[str], kind: str) -> None:
    body = {"image_url": URL, "num_captions": 2}
    answer = client.post("/api/v1/jobs", **{kind: body})
    assert answer.status_code == 202
    assert (answer.json["image"]["filename"], answer.json["num_captions"]) == ("cat.jpg", 2)
    assert fetched == [URL]


def test_under_one_key_it_is_fetched_once(client: FlaskClient, fetched: list[str]) -> None:
    headers = {"Idempotency-Key": "k"}
    first, second = (
        client.post("/api/v1/jobs", json={"image_url": URL}, headers=headers) for _ in range(2)
    )
    assert first.json == second.json
    assert fetched == [URL]
    other = client.post("/api/v1/jobs", json={"image_url": URL + "?"}, headers=headers)
    assert other.json["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("https://away.example/", 422, "image_unfetchable"),
        ("https://photos.example/text", 415, "unsupported_image_type"),
    ],
)
def test_what_is_no_image_leaves_nothing(
    client: FlaskClient, queue: Queue, fetched: list[str], url: str, status: int, code: str
) -> None:
    answer = client.post("/api/v1/jobs", json={"image_url": url})
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert kept(queue) == NOTHING


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://169.254.169.254/", "file:///etc"])
def test_our_own_network_is_refused(client: FlaskClient, queue: Queue, url: str) -> None:
    for answer in (
        client.post("/api/v1/jobs", json={"image_url": url}),
        client.post("/api/v1/jobs", data={"image_url": url}),
    ):
        assert (answer.status_code, answer.json["code"]) == (422, "image_url_refused")
    assert client.post("/", data={"image_url": url}).status_code == 422
    assert kept(queue) == NOTHING


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_option"),
        ({"image_url": None}, 422, "invalid_option"),
        ({"image_url": ""}, 400, "no_image"),
        ({"image_url": 5}, 422, "invalid_option"),
        ({"image_url": URL, "image": "x"}, 422, "invalid_option"),
        ({"image_url": URL, "colour": "x"}, 422, "invalid_option"),
        ([URL], 422, "invalid_option"),
    ],
)
def test_wrong_json_is_refused(
    client: FlaskClient, fetched: list[str], body: Any, status: int, code: str
) -> None:
    answer = client.post("/api/v1/jobs", json=body)
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert fetched == []


@pytest.mark.parametrize("text", ["{", "[" * 50_000, '{"image_url":' * 5000])
def test_text_that_is_no_json_is_refused(client: FlaskClient, text: str) -> None:
    answer = client.post("/api/v1/jobs", data=text, content_type="application/json")
    assert answer.status_code == 400


@pytest.mark.parametrize("kind", ["application/json", "application/problem+json"])
def test_json_that_is_too_long_is_not_read(client: FlaskClient, kind: str) -> None:
    text = json.dumps({"image_url": [[]] * 40_000})
    answer = client.post("/api/v1/jobs", data=text, content_type=kind)
    assert (answer.status_code, answer.json["code"]) == (413, "request_entity_too_large")


def test_a_file_and_an_address_are_too_many(client: FlaskClient, fetched: list[str]) -> None:
    answer = client.post("/api/v1/jobs", data={"image_url": URL, "image": part(photo())})
    assert (answer.status_code, answer.json["code"]) == (413, "too_many_images")
    assert fetched == []


def test_the_page_takes_an_address_beside_files(client: FlaskClient, fetched: list[str]) -> None:
    answer = client.post("/", data={"image_url": f" {URL} ", "images": part(photo(), "dog.jpg")})
    assert answer.status_code == 303
    page = client.get(answer.location).text
    assert "cat.jpg" in page
    assert "dog.jpg" in page
    assert fetched == [URL]


def test_an_address_that_cannot_be_fetched_holds_up_no_file(
    client: FlaskClient, queue: Queue, fetched: list[str]
) -> None:
    data = {"image_url": "https://away.example/dog.jpg?size=l", "images": part(photo(), "cat.jpg")}
    answer = client.post("/", data=data)
    assert answer.status_code == 303
    page = client.get(answer.location).text
    assert "1 file was left out" in page
    assert "dog.jpg" in page
    assert "It is away." in page
    assert kept(queue) == (1, 1, 1, 2)
    batch = client.get(f"/api/v1{answer.location}").json
    (rejection,) = batch["rejected"]
    assert (rejection["code"], rejection["index"]) == ("image_unfetchable", 0)


def test_beside_bad_files_only_each_has_its_reason(
    client: FlaskClient, queue: Queue, fetched: list[str]
) -> None:
    data = {"image_url": "https://away.example/", "images": part(b"", "cat.jpg")}
    answer = client.post("/", data=data)
    assert answer.status_code == 422
    assert "It is away." in answer.text
    assert "away.example" in answer.text
    assert "The file is empty." in answer.text
    assert kept(queue) == NOTHING


def test_the_page_says_why_not(client: FlaskClient, queue: Queue, fetched: list[str]) -> None:
    answer = client.post("/", data={"image_url": "https://away.example/"})
    assert answer.status_code == 422
    assert "It is away." in answer.text
    assert kept(queue) == NOTHING


def test_one_setting_turns_it_off(settings: Settings, fetched: list[str]) -> None:
    off: APIFlask = create_app(settings.model_copy(update={"fetch_image_urls": False}))
    client = off.test_client()
    answer = client.post("/api/v1/jobs", json={"image_url": URL})
    assert (answer.status_code, answer.json["code"]) == (422, "image_url_refused")
    assert client.post("/", data={"image_url": URL}).status_code == 422
    assert "image_url" not in client.get("/").text
    assert fetched == []
    off.extensions["captioning"].close()


def test_slow_sites_hold_few_threads(
    client: FlaskClient, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter may fetch at once; who comes then is told to come back."""
    fetching_now, go_on = Semaphore(0), Event()

    def fetch(url: str, *, max_bytes: int) -> Upload:
        fetching_now.release()
        go_on.wait(60)
        return Upload("cat.jpg", photo())

    monkeypatch.setattr(fetching, "fetch", fetch)
    body = {"image_url": URL}
    seats = queue.settings.web_threads // 4
    with ThreadPoolExecutor(seats) as pool:
        sent = [
            pool.submit(client.application.test_client().post, "/api/v1/jobs", json=body)
            for _ in range(seats)
        ]
        for _ in range(seats):
            assert fetching_now.acquire(timeout=60)
        refused = client.post("/api/v1/jobs", json=body)
        go_on.set()
        assert [answer.result().status_code for answer in sent] == [202] * seats
    assert (refused.status_code, refused.json["code"]) == (503, "unavailable")
    assert refused.headers["Retry-After"]
    assert client.post("/api/v1/jobs", json=body).status_code == 202


def test_the_description_says_that_json_is_taken(client: FlaskClient) -> None:
    spec = client.get("/api/openapi.json").json
    content = spec["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}
    assert spec["components"]["schemas"]["JobByAddress"]["required"] == ["image_url"]
