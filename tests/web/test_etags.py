from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from captioning.queue import Queue
from tests.web.outcomes import caption
from tests.web.sending import Part, photos


def image() -> dict[str, Part]:
    return {"image": photos(1)[0]}


@pytest.fixture(params=["job", "batch"])
def thing(request: pytest.FixtureRequest, client: FlaskClient) -> str:
    """The address of a batch, or of its job."""
    batch = client.post("/api/v1/batches", data={"images": photos(1)}).json
    links = batch["links"] if request.param == "batch" else batch["jobs"][0]["links"]
    return str(links["self"])


def test_what_has_not_changed_is_not_sent_again(client: FlaskClient, thing: str) -> None:
    tag = client.get(thing).headers["ETag"]
    again = client.get(thing, headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == tag
    assert client.get(thing, headers={"If-None-Match": '"another"'}).status_code == 200


def test_what_has_changed_has_another_tag(client: FlaskClient, queue: Queue, thing: str) -> None:
    tags = [client.get(thing).headers["ETag"]]
    (job_id,) = caption(queue, "a wall")
    tags.append(client.get(thing).headers["ETag"])
    client.patch(f"/api/v1/jobs/{job_id}", json={"caption": "our wall"})
    answer = client.get(thing, headers={"If-None-Match": ", ".join(tags)})
    assert answer.status_code == 200
    assert answer.headers["ETag"] not in tags


def test_the_place_in_the_queue_is_not_in_the_tag(client: FlaskClient, queue: Queue) -> None:
    path = [client.post("/api/v1/jobs", data=image()).json["links"]["self"] for _ in range(3)][-1]
    read = client.get(path)
    tag = read.headers["ETag"]
    caption(queue, "a wall", limit=1)
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    moved = client.get(path).json["queue"]["place"]
    assert (read.json["queue"]["place"], moved) == (3, 2)
    edited = client.patch(path, json={"caption": "ours"}, headers={"If-Match": tag})
    assert edited.status_code == 200
    assert client.get(path).headers["ETag"] == edited.headers["ETag"] != tag


def test_what_is_not_there_has_no_tag(client: FlaskClient) -> None:
    answer = client.get(f"/api/v1/jobs/{'0' * 32}", headers={"If-None-Match": "*"})
    assert answer.status_code == 404
    assert "ETag" not in answer.headers


def test_an_edit_of_what_has_changed_is_refused(client: FlaskClient, queue: Queue) -> None:
    client.post("/api/v1/batches", data={"images": photos(1)})
    (job_id,) = caption(queue, "a wall")
    job = f"/api/v1/jobs/{job_id}"

    def edit(text: str, tag: str) -> TestResponse:
        return client.patch(job, json={"caption": text}, headers={"If-Match": tag})

    read = client.get(job).headers["ETag"]
    first = edit("our wall", read)
    assert (first.status_code, first.headers["ETag"]) == (200, client.get(job).headers["ETag"])
    second = edit("their wall", read)
    assert (second.status_code, second.json["code"]) == (412, "changed_since")
    assert client.get(job).json["caption"] == "our wall"
    for form in ("{}", '"another", {}', "*"):
        first = edit(f"{first.json['caption']}!", form.format(first.headers["ETag"]))
        assert first.status_code == 200
    for tag in (f"W/{first.headers['ETag']}", '"another"', "", "no tag"):
        assert edit("their wall", tag).status_code == 412
    assert client.get(job).json["caption"] == "our wall!!!"


def test_an_edit_of_what_is_not_there_is_not_found(client: FlaskClient) -> None:
    path = f"/api/v1/jobs/{'0' * 32}"
    for tag in ("*", '"another"'):
        answer = client.patch(path, json={"caption": "a"}, headers={"If-Match": tag})
        assert answer.status_code == 404
