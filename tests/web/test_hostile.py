"""The same corpus over HTTP: a refusal or a job, and never an error of ours."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from captioning import errors
from captioning.queue import Queue
from tests.hostile import corpus
from tests.web.sending import form, kept, part, photos
from web.problems import STATUSES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

REFUSALS = {
    kind.code: STATUSES.get(kind, STATUSES[errors.ImageRejected])
    for kind in errors.ImageRejected.__subclasses__()
}


@pytest.mark.slow
def test_each_file_gets_its_answer_and_nothing_else_happens(
    client: FlaskClient, queue: Queue
) -> None:
    taken = 0
    for name, data, outcome in corpus():
        answer = client.post("/api/v1/jobs", **form("image", [part(data, f"{name}.jpg")]))
        if isinstance(outcome, str):
            assert (answer.status_code, answer.json["code"]) == (REFUSALS[outcome], outcome), name
        else:
            assert answer.status_code == 202, name
            image = answer.json["image"]
            assert (image["width"], image["height"]) == outcome, name
            served = client.get(image["url"])
            assert served.headers["Content-Type"] == "image/jpeg"
            assert served.headers["X-Content-Type-Options"] == "nosniff"
            taken += 1
    assert kept(queue) == (taken, 0, taken, 2 * taken)
    assert client.get("/healthz").status_code == 200


def test_in_one_upload_they_spoil_no_photograph(client: FlaskClient) -> None:
    bad = [part(data) for _, data, outcome in corpus() if isinstance(outcome, str)]
    small = [item for item in bad if len(item[0].getvalue()) < 1_000_000]
    answer = client.post("/api/v1/batches", **form("images", small + photos(2)))
    assert answer.status_code == 202
    assert len(answer.json["jobs"]) == 2
    assert [item["index"] for item in answer.json["rejected"]] == list(range(len(small)))
