"""Webhooks over HTTP: asking for one, the log, redelivery, the secret."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from captioning import webhooks
from captioning.messages import Answer
from captioning.models import DeliveryStatus, new_id
from captioning.queue import Queue
from tests.factories import photo
from tests.web.outcomes import caption
from tests.web.sending import NOTHING, form, kept, part, photos

URL = "https://receiver.example/hooks"
DELIVERIES = "/api/v1/webhooks/deliveries"


def deliver(queue: Queue, answer: Answer) -> str:
    """What the courier of a worker does; returns the message's id."""
    with queue.database.write() as session:
        message = webhooks.take_due(session)
    assert message is not None
    with queue.database.write() as session:
        webhooks.record(session, message, answer)
    return message.id


def submit(client: FlaskClient, **fields: str) -> Any:
    answer = client.post("/api/v1/jobs", **form("image", [part(photo())], **fields))
    assert answer.status_code == 202
    return answer.json


def test_a_job_and_its_log(client: FlaskClient, queue: Queue) -> None:
    job = submit(client, webhook_url=URL)
    assert client.get(DELIVERIES).json["deliveries"] == []
    caption(queue, "A wall.")
    (pending,) = client.get(DELIVERIES).json["deliveries"]
    assert (pending["job_id"], pending["url"]) == (job["id"], URL)
    assert (pending["status"], pending["attempts"]) == ("pending", [])
    assert pending["next_at"]
    deliver(queue, Answer(503, "It answered 503, which is not 2xx.", 0.25))
    again = client.get(pending["links"]["self"]).json
    assert again["status"] == "pending"
    assert again["attempts"][0]["status_code"] == 503
    assert "503" in again["attempts"][0]["error"]
    assert again["attempts"][0]["seconds"] == 0.25


def test_a_batch_and_its_log(client: FlaskClient, queue: Queue) -> None:
    sent = form("images", photos(2), webhook_url=URL)
    batch = client.post("/api/v1/batches", **sent).json
    caption(queue, "A wall.")
    assert deliver(queue, Answer(200, None, 0.1))
    (delivery,) = client.get(DELIVERIES).json["deliveries"]
    assert (delivery["batch_id"], delivery["job_id"]) == (batch["id"], None)
    assert (delivery["status"], delivery["next_at"]) == ("delivered", None)


def test_the_address_may_come_as_json(client: FlaskClient, queue: Queue) -> None:
    body = {"image_url": "http://127.0.0.1/", "webhook_url": "http://10.0.0.1/"}
    answer = client.post("/api/v1/jobs", json=body)
    assert (answer.status_code, answer.json["code"]) == (422, "webhook_url_refused")


@pytest.mark.parametrize("url", ["", "receiver", "http://127.0.0.1/", "http://u:p@x.example/"])
@pytest.mark.parametrize(("path", "field"), [("jobs", "image"), ("batches", "images")])
def test_a_wrong_address_is_refused_before_anything_is_kept(
    client: FlaskClient, queue: Queue, path: str, field: str, url: str
) -> None:
    sent = form(field, [part(photo())], webhook_url=url)
    answer = client.post(f"/api/v1/{path}", **sent)
    assert (answer.status_code, answer.json["code"]) == (422, "webhook_url_refused")
    assert kept(queue) == NOTHING


def test_the_log_goes_by_pages_and_filters(client: FlaskClient, queue: Queue) -> None:
    jobs = [submit(client, webhook_url=URL)["id"] for _ in range(3)]
    caption(queue, "A wall.")
    deliver(queue, Answer(200, None, 0.1))
    page = client.get(DELIVERIES, query_string={"limit": 2}).json
    rest = client.get(page["next"]).json
    listed = [each["job_id"] for each in page["deliveries"] + rest["deliveries"]]
    assert sorted(listed) == sorted(jobs)
    assert rest["next"] is None
    for status, expected in ((DeliveryStatus.DELIVERED, 1), (DeliveryStatus.PENDING, 2)):
        found = client.get(DELIVERIES, query_string={"status": status.value}).json["deliveries"]
        assert {each["status"] for each in found} == {status}
        assert len(found) == expected
    (one,) = client.get(DELIVERIES, query_string={"job": jobs[1]}).json["deliveries"]
    assert one["job_id"] == jobs[1]
    assert client.get(DELIVERIES, query_string={"batch": new_id()}).json["deliveries"] == []


def test_a_message_is_sent_again_on_demand(client: FlaskClient, queue: Queue) -> None:
    submit(client, webhook_url=URL)
    caption(queue, "A wall.")
    (pending,) = client.get(DELIVERIES).json["deliveries"]
    path = f"{DELIVERIES}/{pending['id']}/redeliver"
    refused = client.post(path)
    assert (refused.status_code, refused.json["code"]) == (409, "wrong_state")
    sent = deliver(queue, Answer(200, None, 0.1))
    answer = client.post(path)
    assert (answer.status_code, answer.json["status"]) == (202, "pending")
    assert deliver(queue, Answer(200, None, 0.1)) == sent == pending["id"]


@pytest.mark.parametrize("delivery_id", ["x", "0" * 32])
def test_an_unknown_delivery_is_not_found(client: FlaskClient, delivery_id: str) -> None:
    for answer in (
        client.get(f"{DELIVERIES}/{delivery_id}"),
        client.post(f"{DELIVERIES}/{delivery_id}/redeliver"),
    ):
        assert (answer.status_code, answer.json["code"]) == (404, "delivery_not_found")


def test_the_secret_stays_until_it_is_changed(client: FlaskClient) -> None:
    path = "/api/v1/webhooks/secret"
    answer = client.get(path)
    assert answer.headers["Cache-Control"] == "no-store"
    first = answer.json["secret"]
    assert first.startswith("whsec_")
    assert client.get(path).json["secret"] == first
    changed = client.post(path).json["secret"]
    assert changed != first
    assert client.get(path).json["secret"] == changed
