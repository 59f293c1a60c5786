from __future__ import annotations

from threading import Thread

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioning.forecast import MOST_COUNTED, Forecast
from captioning.queue import Queue
from tests.factories import photo
from tests.web.outcomes import REVISION, caption, claim, fail, start_worker
from tests.web.sending import BAD_FILES, NOTHING, bad_file, form, kept, part
from web.api.schemas import queue_body

UNKNOWN_ID = "0" * 32


def send(client: FlaskClient, data: bytes | None = None, **fields: str) -> TestResponse:
    image = part(photo() if data is None else data)
    return client.post("/api/v1/jobs", **form("image", [image], **fields))


def test_a_photograph_is_accepted_while_the_broker_is_away(
    client: FlaskClient, queue: Queue
) -> None:
    answer = send(client)
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json["links"]["self"]
    assert answer.headers["Retry-After"] == "1"
    assert answer.json["status"] == "queued"
    assert kept(queue) == (1, 0, 1, 2)


def test_location_leads_to_the_same_job(client: FlaskClient) -> None:
    answer = send(client)
    found = client.get(answer.headers["Location"]).json
    assert found.pop("queue")["place"] == 1
    assert found | {"queue": None} == answer.json


def test_a_queued_job_says_where_it_stands(client: FlaskClient, queue: Queue) -> None:
    job = [send(client).headers["Location"] for _ in range(3)][-1]
    nobody = {"place": 3, "workers_online": False, "expected_s": None}
    assert client.get(job).json["queue"] == nobody
    start_worker(queue)
    assert client.get(job).json["queue"] == nobody | {"workers_online": True}
    caption(queue, "a wall", limit=1)
    standing = client.get(job).json["queue"]
    assert isinstance(standing.pop("expected_s"), int)
    assert standing == {"place": 2, "workers_online": True}


@pytest.mark.parametrize(
    ("forecast", "online", "expected_s"),
    [
        (Forecast(4, 2.01), True, 3),
        (Forecast(4, 2.01), False, None),
        (Forecast(MOST_COUNTED, None), True, None),
    ],
)
def test_what_is_expected_is_whole_seconds_of_workers_that_are_there(
    forecast: Forecast, online: bool, expected_s: int | None
) -> None:
    body = queue_body(forecast, online)
    assert (body.place, body.expected_s) == (forecast.ahead + 1, expected_s)


def test_what_does_not_wait_and_what_is_listed_costs_no_forecast(
    client: FlaskClient, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, waiting = (send(client).headers["Location"] for _ in range(2))
    claim(queue, limit=1)
    monkeypatch.delattr("captioning.forecast.of_job")
    assert client.get(running).json["queue"] is None
    assert [job["queue"] for job in client.get("/api/v1/jobs").json["jobs"]] == [None, None]
    tag = {"If-None-Match": client.patch(waiting, json={}).headers["ETag"]}
    assert client.get(waiting, headers=tag).status_code == 304
    assert client.get(waiting).status_code == 500  # it alone has asked


def test_options_are_taken(client: FlaskClient) -> None:
    body = send(client, model="bundled", decoding="beam", num_captions="3", max_words="8").json
    assert (body["model"], body["decoding"], body["num_captions"]) == ("bundled", "beam", 3)
    assert body["max_words"] == 8
    assert send(client).json["max_words"] is None


def test_a_finished_job_has_its_captions_best_first(client: FlaskClient, queue: Queue) -> None:
    location = send(client, num_captions="2").headers["Location"]
    caption(queue, "a teal wall", "a wall")
    answer = client.get(location)
    body = answer.json
    assert "Retry-After" not in answer.headers
    assert body["status"] == "succeeded"
    assert body["caption"] == "a teal wall"
    assert body["captions"] == [
        {"text": "a teal wall", "mean_log_probability": -0.5, "model_revision": REVISION},
        {"text": "a wall", "mean_log_probability": -1.5, "model_revision": REVISION},
    ]
    assert body["attempts"] == 1
    assert body["error"] is None
    assert body["finished_at"] >= body["started_at"] >= body["created_at"]


def test_a_failed_job_says_why(client: FlaskClient, queue: Queue) -> None:
    location = send(client).headers["Location"]
    fail(queue, "The model gave up.")
    body = client.get(location).json
    assert body["status"] == "failed"
    assert body["caption"] is None
    assert body["error"] == {"code": "model_error", "message": "The model gave up."}


def test_the_image_is_described_and_linked(client: FlaskClient) -> None:
    answer = client.post("/api/v1/jobs", data={"image": part(photo((64, 48)), "../../etc/cat.jpg")})
    image = answer.json["image"]
    assert (image["filename"], image["width"], image["height"]) == ("cat.jpg", 64, 48)
    for url in (image["url"], image["thumbnail_url"]):
        assert client.get(url).mimetype == "image/jpeg"


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_with_its_own_reason(
    client: FlaskClient, queue: Queue, kind: str
) -> None:
    status, code, words = BAD_FILES[kind]
    answer = send(client, bad_file(kind))
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    body = answer.json
    assert (body["status"], body["code"]) == (status, code)
    assert words in body["detail"]
    assert body["type"].endswith(code)
    assert body["title"]
    assert kept(queue) == NOTHING


@pytest.mark.parametrize(
    "data", [{}, {"image": ""}, {"image": part(b"", "")}], ids=["nothing", "empty field", "no name"]
)
def test_no_image_is_refused(client: FlaskClient, queue: Queue, data: dict[str, object]) -> None:
    answer = client.post("/api/v1/jobs", data=data, content_type="multipart/form-data")
    assert (answer.status_code, answer.json["code"]) == (400, "no_image")
    assert kept(queue) == NOTHING


def test_two_images_are_too_many_for_one_job(client: FlaskClient, queue: Queue) -> None:
    answer = client.post("/api/v1/jobs", data={"image": [part(photo()), part(photo())]})
    assert (answer.status_code, answer.json["code"]) == (413, "too_many_images")
    assert kept(queue) == NOTHING


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "nobody"}, "unknown_model"),
        ({"decoding": "dice"}, "invalid_option"),
        ({"num_captions": "many"}, "invalid_option"),
        ({"num_captions": "0"}, "invalid_option"),
        ({"num_captions": "6"}, "invalid_option"),
        ({"decoding": "greedy", "num_captions": "2"}, "invalid_option"),
        ({"num_caption": "2"}, "invalid_option"),
        ({"max_words": "0"}, "invalid_option"),
        ({"max_words": "101"}, "invalid_option"),
        ({"priority": "urgent"}, "invalid_option"),
    ],
)
def test_a_wrong_option_is_refused(
    client: FlaskClient, queue: Queue, fields: dict[str, str], code: str
) -> None:
    answer = send(client, **fields)
    assert (answer.status_code, answer.json["code"]) == (422, code)
    assert answer.json["detail"]
    assert kept(queue) == NOTHING


@pytest.mark.parametrize("job_id", [UNKNOWN_ID, "x", "%00", "..%2f..%2fetc"])
def test_an_unknown_job_is_not_found(client: FlaskClient, job_id: str) -> None:
    answer = client.get(f"/api/v1/jobs/{job_id}")
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"


def test_waiting_ends_when_the_job_does(client: FlaskClient, queue: Queue) -> None:
    location = send(client).headers["Location"]
    finishing = Thread(target=caption, args=(queue, "a teal wall"))
    finishing.start()
    answer = client.get(f"{location}?wait=20")
    finishing.join()
    assert answer.json["caption"] == "a teal wall"


def test_waiting_in_vain_answers_with_the_job_as_it_is(client: FlaskClient) -> None:
    location = send(client).headers["Location"]
    answer = client.get(f"{location}?wait=0.1")
    assert (answer.status_code, answer.json["status"]) == (200, "queued")
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("wait", ["21", "-1", "soon", "nan", "inf", ""])
def test_a_wait_that_cannot_be_kept_is_refused(client: FlaskClient, wait: str) -> None:
    answer = client.get(f"/api/v1/jobs/{UNKNOWN_ID}?wait={wait}")
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_option")
    assert answer.json["errors"][0]["field"] == "wait"


def test_waiting_for_an_unknown_job_is_not_found(client: FlaskClient) -> None:
    assert client.get(f"/api/v1/jobs/{UNKNOWN_ID}?wait=20").status_code == 404


def test_jobs_are_listed_newest_first_in_pages(client: FlaskClient) -> None:
    sent = [send(client).json["id"] for _ in range(5)]
    listed = []
    url: str | None = "/api/v1/jobs?limit=2"
    pages = 0
    while url:
        body = client.get(url).json
        listed += [job["id"] for job in body["jobs"]]
        assert (body["next"] is None) == (body["next_cursor"] is None)
        url = body["next"]
        pages += 1
    assert listed == sent[::-1]
    assert pages == 3


def test_the_next_page_keeps_the_filter(client: FlaskClient, queue: Queue) -> None:
    for _ in range(3):
        send(client)
    done = caption(queue, "a wall", limit=2)
    first = client.get("/api/v1/jobs?status=succeeded&limit=1").json
    second = client.get(first["next"]).json
    assert [first["jobs"][0]["id"], second["jobs"][0]["id"]] == done[::-1]
    assert second["next"] is None


def test_jobs_of_one_batch_are_listed(client: FlaskClient) -> None:
    send(client)
    batch = client.post("/api/v1/batches", data={"images": [part(photo())]}).json
    body = client.get(f"/api/v1/jobs?batch={batch['id']}").json
    assert [job["id"] for job in body["jobs"]] == [job["id"] for job in batch["jobs"]]


def test_jobs_are_found_by_words_model_and_time(client: FlaskClient, queue: Queue) -> None:
    made = [send(client).json for _ in range(2)]
    caption(queue, "a wall", limit=1)
    caption(queue, "a door")
    client.patch(made[1]["links"]["self"], json={"caption": "our house"})

    def found(**query: str) -> list[str]:
        jobs = client.get("/api/v1/jobs", query_string=query).json["jobs"]
        return [job["id"] for job in jobs]

    first, second = (job["id"] for job in made)
    assert found(text="wall") == [first]
    assert found(text="House") == found(text="door") == [second]
    assert found(model="bundled", text="a") == [second, first]
    assert found(model="other") == []
    assert found(created_after="2020-01-01T00:00:00+05:00") == [second, first]
    assert found(created_before="2020-01-01T00:00:00Z") == []
    assert found(created_after=made[1]["created_at"]) == []


@pytest.mark.parametrize(
    "query",
    [
        "status=done",
        "limit=0",
        "limit=101",
        "cursor=%ff",
        "cursor=!",
        "wait=1",
        "created_after=yesterday",
        "created_after=2026-01-01T00:00:00",
        "created_before=0001-01-01T00:00:00%2b14:00",
        "created_before=9999-12-31T23:59:59-14:00",
        f"text={'x' * 201}",
    ],
)
def test_a_wrong_query_is_refused(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/api/v1/jobs?{query}")
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_option")
