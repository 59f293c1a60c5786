"""`/model/predict`, asked as MAX's own README and web application ask it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from flask.testing import FlaskClient

from captioning.models import JobStatus
from captioning.queue import JobHandle, Queue
from tests.factories import photo
from tests.web.outcomes import caption, fail
from tests.web.sending import BAD_FILES, NOTHING, bad_file, form, kept, part
from web import ibm_max
from web.waiting import Seats


@contextmanager
def meanwhile(act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do something as soon as somebody has begun to wait for a job."""
    wait = JobHandle.wait

    def act_and_wait(handle: JobHandle, timeout_s: float = 60) -> JobStatus:
        thread = Thread(target=act)
        thread.start()
        try:
            return wait(handle, timeout_s)
        finally:
            thread.join()

    with monkeypatch.context() as patched:
        patched.setattr(JobHandle, "wait", act_and_wait)
        yield


def test_the_request_of_its_readme(
    client: FlaskClient, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """curl -F "image=@assets/surfing.jpg" -X POST http://localhost:5000/model/predict"""
    texts = ("A man on a surfboard.", "A surfer.", "A wave.")
    with meanwhile(lambda: caption(queue, *texts), monkeypatch):
        answer = client.post("/model/predict", **form("image", [part(photo(), "surfing.jpg")]))
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.json["status"] == "ok"
    assert [said["index"] for said in answer.json["predictions"]] == ["0", "1", "2"]
    assert [said["caption"] for said in answer.json["predictions"]] == list(texts)
    probabilities = [said["probability"] for said in answer.json["predictions"]]
    assert probabilities == pytest.approx([math.exp(-0.5), math.exp(-1.5), math.exp(-2.5)])


def test_the_metadata_has_what_theirs_has(client: FlaskClient) -> None:
    answer = client.get("/model/metadata")
    assert answer.status_code == 200
    assert set(answer.json) == {"id", "name", "description", "type", "source"}
    assert "bundled" in answer.json["description"]


@pytest.mark.parametrize("kind", [kind for kind in BAD_FILES if kind != "40 MB"])
def test_what_is_no_image_is_400_and_says_why(client: FlaskClient, queue: Queue, kind: str) -> None:
    answer = client.post("/model/predict", **form("image", [part(bad_file(kind))]))
    assert answer.status_code == 400
    assert BAD_FILES[kind][2] in answer.json["message"]
    assert kept(queue) == NOTHING


@pytest.mark.parametrize("data", [{}, {"image": "text"}, {"file": None}])
def test_no_image_is_400(client: FlaskClient, data: dict[str, str | None]) -> None:
    sent = {name: part(photo()) if value is None else value for name, value in data.items()}
    answer = client.post("/model/predict", data=sent, content_type="multipart/form-data")
    assert answer.status_code == 400
    assert answer.json["message"]


def test_other_fields_are_left_alone_as_there(
    client: FlaskClient, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    with meanwhile(lambda: caption(queue, "A wall."), monkeypatch):
        answer = client.post("/model/predict", **form("image", [part(photo())], topk="3"))
    assert answer.status_code == 200


def test_what_the_model_fails_at_is_500(
    client: FlaskClient, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    with meanwhile(lambda: fail(queue, "It cannot."), monkeypatch):
        answer = client.post("/model/predict", **form("image", [part(photo())]))
    assert (answer.status_code, answer.json["message"]) == (500, "It cannot.")


def test_what_takes_too_long_is_cancelled(
    client: FlaskClient, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ibm_max, "TIMEOUT_S", 0.01)
    answer = client.post("/model/predict", **form("image", [part(photo())]))
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"]
    assert [job["status"] for job in client.get("/api/v1/jobs").json["jobs"]] == ["cancelled"]


def test_who_finds_no_seat_is_sent_away_before_anything_is_kept(
    client: FlaskClient, queue: Queue
) -> None:
    client.application.extensions["captioning.waiting"] = Seats(0)
    answer = client.post("/model/predict", **form("image", [part(photo())]))
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
    assert kept(queue) == NOTHING


def test_a_wrong_method_is_answered_to_a_program(client: FlaskClient) -> None:
    """MAX's web application asks so whether anybody is there."""
    answer = client.get("/model/predict")
    assert (answer.status_code, answer.mimetype) == (405, "application/problem+json")
