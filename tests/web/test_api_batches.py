from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from captioning import queries
from captioning.queue import Queue
from captioning.settings import Settings
from tests.factories import photo
from tests.web.outcomes import caption, claim, fail
from tests.web.sending import BAD_FILES, NOTHING, bad_file, form, kept, part, photos
from web import create_app


def test_each_image_becomes_a_job_of_the_batch(client: FlaskClient) -> None:
    fields = {"images": photos(3), "num_captions": "2", "max_words": "7"}
    answer = client.post("/api/v1/batches", data=fields)
    body = answer.json
    assert answer.status_code == 202
    assert client.get(answer.headers["Location"]).json == body
    assert [job["image"]["filename"] for job in body["jobs"]] == [
        f"photo-{i}.jpg" for i in range(3)
    ]
    assert {(job["num_captions"], job["max_words"]) for job in body["jobs"]} == {(2, 7)}
    assert {job["batch_id"] for job in body["jobs"]} == {body["id"]}
    assert body["rejected"] == []


def test_a_bulk_upload_waits_for_an_interactive_one(client: FlaskClient, queue: Queue) -> None:
    client.post("/api/v1/batches", data={"images": photos(2), "priority": "bulk"})
    client.post("/api/v1/jobs", data={"image": photos(1)[0], "priority": "interactive"})
    held = claim(queue, limit=3)
    with queue.database.read() as session:
        priorities = [queries.get_job(session, job.id).priority for job in held.jobs]
    assert priorities == [0, 1, 1]


def test_progress_is_counted_by_state(client: FlaskClient, queue: Queue) -> None:
    location = client.post("/api/v1/batches", data={"images": photos(3)}).headers["Location"]
    caption(queue, "a wall", limit=1)
    fail(queue, "No.")
    assert client.get(location).json["progress"] == {
        "total": 3,
        "finished": 2,
        "queued": 1,
        "running": 0,
        "succeeded": 1,
        "failed": 1,
        "cancelled": 0,
    }


def test_of_twenty_files_three_broken_ones_are_left_out(client: FlaskClient, queue: Queue) -> None:
    broken = ["zero-byte", "text", "truncated"]
    parts = photos(17) + [part(bad_file(kind), f"{kind}.jpg") for kind in broken]
    body = client.post("/api/v1/batches", data={"images": parts}).json
    assert len(body["jobs"]) == 17
    assert [(item["filename"], item["code"]) for item in body["rejected"]] == [
        (f"{kind}.jpg", BAD_FILES[kind][1]) for kind in broken
    ]
    assert kept(queue) == (17, 1, 17, 34)


def test_a_batch_of_bad_files_is_refused_with_each_reason(
    client: FlaskClient, queue: Queue
) -> None:
    parts = [part(bad_file(kind), kind) for kind in BAD_FILES]
    answer = client.post("/api/v1/batches", **form("images", parts))
    assert (answer.status_code, answer.json["code"]) == (422, "all_rejected")
    assert [(item["filename"], item["code"]) for item in answer.json["rejected"]] == [
        (kind, code) for kind, (_, code, _) in BAD_FILES.items()
    ]
    assert kept(queue) == NOTHING


def test_an_empty_batch_is_refused(client: FlaskClient, queue: Queue) -> None:
    answer = client.post("/api/v1/batches", data={"images": part(b"", "")})
    assert (answer.status_code, answer.json["code"]) == (400, "no_image")
    assert kept(queue) == NOTHING


def test_an_unknown_batch_is_not_found(client: FlaskClient) -> None:
    answer = client.get("/api/v1/batches/" + "0" * 32)
    assert (answer.status_code, answer.json["code"]) == (404, "batch_not_found")


def test_too_many_images_are_refused(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_images_per_upload": 2}))
    answer = app.test_client().post("/api/v1/batches", data={"images": photos(3)})
    assert (answer.status_code, answer.json["code"]) == (413, "too_many_images")
    assert kept(app.extensions["captioning"]) == NOTHING


@pytest.mark.parametrize("path", ["/api/v1/batches", "/"])
def test_an_upload_that_is_too_large_altogether_is_refused(settings: Settings, path: str) -> None:
    app = create_app(settings.model_copy(update={"max_upload_bytes": 10_000}))
    answer = app.test_client().post(path, data={"images": [part(photo() + bytes(20_000))]})
    assert answer.status_code == 413
    assert kept(app.extensions["captioning"]) == NOTHING
