"""`Idempotency-Key` over HTTP."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioning.queue import Queue
from tests.factories import photo
from tests.web.outcomes import caption
from tests.web.sending import form, kept, part


def send(
    client: FlaskClient,
    key: str,
    *,
    path: str = "/api/v1/jobs",
    data: bytes | None = None,
    filename: str = "photo.jpg",
    **fields: str,
) -> TestResponse:
    field = "image" if path.endswith("jobs") else "images"
    sent = form(field, [part(photo() if data is None else data, filename)], **fields)
    return client.post(path, headers={"Idempotency-Key": key}, **sent)


def test_the_same_request_is_answered_with_the_same_job(client: FlaskClient, queue: Queue) -> None:
    first = send(client, "k1", num_captions="2")
    caption(queue, "a wall")
    second = send(client, "k1", num_captions="2")
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json["id"] == first.json["id"]
    assert second.headers["Location"] == first.headers["Location"]
    assert second.json["caption"] == "a wall"
    assert kept(queue) == (1, 0, 1, 2)


def test_the_same_upload_is_answered_with_the_same_batch(client: FlaskClient, queue: Queue) -> None:
    first, second = (send(client, "k1", path="/api/v1/batches") for _ in range(2))
    assert second.json == first.json
    assert kept(queue) == (1, 1, 1, 2)


@pytest.mark.parametrize(
    "other",
    [
        {"data": photo(colour="red")},
        {"filename": "other.jpg"},
        {"num_captions": "2"},
        {"path": "/api/v1/batches"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_request_under_the_key_is_refused(
    client: FlaskClient, queue: Queue, other: dict[str, str]
) -> None:
    send(client, "k1")
    answer = send(client, "k1", **other)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json["code"]) == (422, "idempotency_key_reused")
    assert kept(queue) == (1, 0, 1, 2)


def test_other_keys_make_other_jobs(client: FlaskClient) -> None:
    assert send(client, "k1").json["id"] != send(client, "k2").json["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "ümlaut"])
def test_a_key_that_cannot_be_kept_is_refused(client: FlaskClient, queue: Queue, key: str) -> None:
    answer = send(client, key)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_option")
    assert answer.json["errors"][0]["field"].lower().replace("-", "_") == "idempotency_key"
    assert kept(queue) == (0, 0, 0, 0)


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/batches"])
def test_the_description_names_the_header(client: FlaskClient, path: str) -> None:
    described = client.get("/api/openapi.json").json["paths"][path]["post"]["parameters"]
    assert [(item["name"], item["in"]) for item in described] == [("Idempotency-Key", "header")]
