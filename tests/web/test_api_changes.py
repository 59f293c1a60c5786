"""What can be done with a job and a batch once they are there: edit, cancel, retry, delete."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from captioning import jobs
from captioning.jobs import CaptionText
from captioning.queue import Queue
from tests.factories import photo
from tests.web.outcomes import caption, claim, fail
from tests.web.sending import NOTHING, form, kept, part, photos

UNKNOWN = "0" * 32


@pytest.fixture
def job(client: FlaskClient) -> str:
    """The address of a queued job."""
    location = client.post("/api/v1/jobs", **form("image", [part(photo())])).headers["Location"]
    return str(location)


def edited(client: FlaskClient, job: str, **fields: Any) -> dict[str, Any]:
    answer = client.patch(job, json=fields)
    assert answer.status_code == 200
    assert client.get(job).json == answer.json
    body = answer.json
    return {name: body[name] for name in ("caption", "edited", "decorative", "alt")}


def test_a_caption_is_edited_beside_the_models(client: FlaskClient, queue: Queue, job: str) -> None:
    caption(queue, "a wall")
    for _ in range(2):  # the same again changes nothing
        assert edited(client, job, caption="our  wall") == {
            "caption": "our wall",
            "edited": True,
            "decorative": False,
            "alt": "our wall",
        }
    assert client.get(job).json["captions"][0]["text"] == "a wall"
    assert edited(client, job, caption=None)["caption"] == "a wall"


def test_a_decorative_photograph_has_an_empty_alt(
    client: FlaskClient, queue: Queue, job: str
) -> None:
    caption(queue, "a wall")
    assert edited(client, job, decorative=True)["alt"] == ""
    assert edited(client, job, caption="our wall")["alt"] == ""
    assert edited(client, job, decorative=False)["alt"] == "our wall"
    assert edited(client, job)["caption"] == "our wall"


@pytest.mark.parametrize(
    "body",
    [{"caption": ""}, {"caption": " "}, {"caption": "\x1c"}, {"text": "a"}, {"decorative": "?"}],
)
def test_a_wrong_edit_is_refused(client: FlaskClient, job: str, body: dict[str, str]) -> None:
    answer = client.patch(job, json=body)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_option")


def test_an_edit_is_json(client: FlaskClient, job: str) -> None:
    assert client.patch(job, data={"caption": "our wall"}).status_code in (400, 415)
    assert client.get(job).json["caption"] is None


def test_a_job_is_cancelled_once_and_retried(client: FlaskClient, job: str) -> None:
    answer = client.post(f"{job}/cancel")
    assert (answer.status_code, answer.json["status"]) == (200, "cancelled")
    assert client.post(f"{job}/cancel").json["code"] == "wrong_state"
    answer = client.post(f"{job}/retry")
    assert (answer.status_code, answer.json["status"]) == (202, "queued")
    assert answer.headers["Location"] == job
    assert client.post(f"{job}/retry").status_code == 409


def test_a_failed_job_is_retried(client: FlaskClient, queue: Queue, job: str) -> None:
    fail(queue, "No.")
    assert client.post(f"{job}/retry").json["error"] is None


def test_a_job_is_deleted_with_its_image(client: FlaskClient, queue: Queue, job: str) -> None:
    image = client.get(job).json["image"]
    assert (client.delete(job).status_code, client.delete(job).status_code) == (204, 404)
    assert kept(queue) == NOTHING
    for path in (job, image["url"], image["thumbnail_url"]):
        assert client.get(path).status_code == 404


def test_a_job_that_runs_can_be_deleted(client: FlaskClient, queue: Queue, job: str) -> None:
    held = claim(queue)
    assert client.delete(job).status_code == 204
    with queue.database.write() as session:
        captions = {held.jobs[0].id: [CaptionText("a wall", -1)]}
        assert jobs.succeed(session, held.token, captions, model_revision="r") == set()
    assert kept(queue) == NOTHING


def test_a_batch_is_deleted_with_its_jobs(client: FlaskClient, queue: Queue) -> None:
    batch = client.post("/api/v1/batches", data={"images": photos(3)}).headers["Location"]
    assert (client.delete(batch).status_code, client.delete(batch).status_code) == (204, 404)
    assert kept(queue) == NOTHING


def test_the_rest_of_a_batch_is_cancelled_and_the_failed_are_retried(
    client: FlaskClient, queue: Queue
) -> None:
    batch = client.post("/api/v1/batches", data={"images": photos(4)}).headers["Location"]
    caption(queue, "a wall", limit=1)
    fail(queue, "No.")
    answer = client.post(f"{batch}/cancel")
    assert (answer.status_code, answer.json) == (200, client.get(batch).json)
    assert [job["status"] for job in answer.json["jobs"]] == [
        "succeeded",
        "failed",
        "cancelled",
        "cancelled",
    ]
    for _ in range(2):  # nothing is left of it the second time
        answer = client.post(f"{batch}/retry")
        assert (answer.status_code, answer.headers["Location"]) == (202, batch)
        assert answer.json["progress"]["queued"] == 1
        assert answer.json["progress"]["cancelled"] == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", f"/api/v1/jobs/{UNKNOWN}"),
        ("DELETE", f"/api/v1/jobs/{UNKNOWN}"),
        ("POST", f"/api/v1/jobs/{UNKNOWN}/cancel"),
        ("POST", f"/api/v1/jobs/{UNKNOWN}/retry"),
        ("DELETE", f"/api/v1/batches/{UNKNOWN}"),
        ("POST", f"/api/v1/batches/{UNKNOWN}/cancel"),
        ("POST", f"/api/v1/batches/{UNKNOWN}/retry"),
    ],
)
def test_what_is_not_there_is_not_changed(client: FlaskClient, method: str, path: str) -> None:
    sent = {"json": {"caption": "a"}} if method == "PATCH" else {}
    assert client.open(path, method=method, **sent).status_code == 404  # type: ignore[arg-type]
