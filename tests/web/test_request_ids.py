"""Request ids: taken, made, told, and forgotten."""

from __future__ import annotations

import io

import pytest
from flask.testing import FlaskClient

from captioning.logs import request_id
from captioning.queue import Queue
from tests.factories import photo, read_job


def test_the_senders_id_is_told_back(client: FlaskClient) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": "edge-1.a_B"})
    assert answer.headers["X-Request-ID"] == "edge-1.a_B"


def test_each_request_without_an_id_gets_one(client: FlaskClient) -> None:
    first, second = (client.get("/healthz").headers["X-Request-ID"] for _ in range(2))
    assert first
    assert first != second


@pytest.mark.parametrize("forged", ["", "a b", '"},{"', "x" * 65, "ü"])
def test_an_id_that_could_forge_a_line_is_replaced(client: FlaskClient, forged: str) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": forged})
    assert answer.headers["X-Request-ID"] not in ("", forged)


def test_errors_have_an_id_too(client: FlaskClient) -> None:
    answer = client.get("/api/v1/nothing", headers={"X-Request-ID": "r1"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (404, "r1")


def test_the_id_is_forgotten_with_its_request(client: FlaskClient) -> None:
    client.get("/healthz", headers={"X-Request-ID": "r1"})
    assert request_id.get() is None


def test_the_job_keeps_the_id_of_the_request_that_made_it(
    client: FlaskClient, queue: Queue
) -> None:
    answer = client.post(
        "/api/v1/jobs",
        data={"image": (io.BytesIO(photo()), "photo.jpg")},
        headers={"X-Request-ID": "edge-1"},
    )
    assert read_job(queue.database, answer.get_json()["id"]).request_id == "edge-1"
