from __future__ import annotations

import logging
from pathlib import Path

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from captioning import errors
from captioning.queue import AllRejected
from captioning.settings import Settings
from tests.factories import photo
from tests.web.sending import part
from web import create_app
from web.problems import of_domain


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NoImage(), 400),
        (errors.TooManyImages(), 413),
        (errors.UnknownModel(), 422),
        (errors.ImageEmpty(), 400),
        (errors.ImageTooLarge(), 413),
        (errors.UnsupportedImageType(), 415),
        (errors.ImageTooManyPixels(), 422),
        (errors.ImageUnreadable(), 422),
        (AllRejected(()), 422),
        (errors.JobNotFound(), 404),
        (errors.WrongState(), 409),
        (errors.StorageUnavailable(), 503),
        (errors.StorageFull(), 503),
        (errors.QueueFull(), 503),
        (errors.SettingsError(), 500),
    ],
)
def test_each_error_has_its_status(error: errors.CaptioningError, status: int) -> None:
    problem = of_domain(error)
    assert (problem.status, problem.code) == (status, error.code)


def test_an_unknown_address_is_a_problem_for_programs(client: FlaskClient) -> None:
    answer = client.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
    assert answer.json["code"] == "not_found"


def test_an_unknown_address_is_a_page_for_people(client: FlaskClient) -> None:
    answer = client.get("/nothing")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "Not Found" in answer.text


def test_a_wrong_method_says_which_are_right(client: FlaskClient) -> None:
    answer = client.delete("/api/v1/jobs")
    assert (answer.status_code, answer.json["code"]) == (405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/api/v1/boom", "/boom"])
def test_a_fault_of_ours_is_logged_and_not_described(
    app: APIFlask, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    def boom() -> str:
        raise RuntimeError("the password is swordfish")

    app.add_url_rule(path, view_func=boom)
    with caplog.at_level(logging.ERROR):
        answer = app.test_client().get(path)
    assert answer.status_code == 500
    assert "swordfish" not in answer.text
    assert "swordfish" in caplog.text


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/captioning.db"
    client = create_app(Settings(data_dir=tmp_path, database_url=url)).test_client()
    for path in ("/api/v1/jobs", "/", "/gallery"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
    assert client.get("/api/v1/jobs").json["code"] == "database_unavailable"


@pytest.mark.parametrize("part_away", ["database_url", "storage_url"])
def test_a_strangers_answer_does_not_say_where_a_part_is(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, part_away: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    urls = {
        "database_url": "postgresql+psycopg://anna@127.0.0.1:1/captions",
        "storage_url": (tmp_path / "file" / "x").as_uri(),
    }
    broken = settings.model_copy(update={part_away: urls[part_away]})
    client = create_app(broken).test_client()
    for answer in (
        client.post("/api/v1/jobs", data={"image": part(photo())}),
        client.post("/", data={"images": part(photo())}),
        client.get("/readyz"),
    ):
        assert answer.status_code == 503
        assert "cannot be reached." in answer.text
        for place in ("127.0.0.1", "anna", str(tmp_path), "os error"):
            assert place not in answer.text
    assert "Connection refused" in caplog.text or str(tmp_path) in caplog.text


def test_a_full_queue_says_when_to_come_back(settings: Settings) -> None:
    client = create_app(settings.model_copy(update={"max_queued_jobs": 1})).test_client()
    assert client.post("/api/v1/jobs", data={"image": part(photo())}).status_code == 202
    for path, field in (("/api/v1/jobs", "image"), ("/api/v1/batches", "images")):
        answer = client.post(path, data={field: part(photo())})
        assert (answer.status_code, answer.json["code"]) == (503, "queue_full")
        assert answer.headers["Retry-After"] == "30"


def test_a_store_that_is_away_refuses_the_upload(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    broken = settings.model_copy(update={"storage_url": (tmp_path / "file" / "x").as_uri()})
    client = create_app(broken).test_client()
    answer = client.post("/api/v1/jobs", data={"image": part(photo())})
    assert (answer.status_code, answer.json["code"]) == (503, "storage_unavailable")
    assert client.get("/api/v1/jobs").json["jobs"] == []
