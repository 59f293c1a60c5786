"""The table of deliveries, on both databases: what is said, when, how often, and to whom."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Network
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select, update

from captioning import jobs, messages, webhook_secrets, webhooks
from captioning.database import Database, db_now
from captioning.errors import DeliveryNotFound, WebhookUrlRefused, WrongState
from captioning.jobs import CaptionText, JobOptions
from captioning.messages import Answer, Message
from captioning.models import (
    Batch,
    DeliveryStatus,
    Job,
    JobStatus,
    WebhookDelivery,
    WebhookSecret,
    new_id,
)
from captioning.webhooks import KEPT_S, RETRY_DELAYS_S, SENDING_S
from tests.factories import MODEL, add_image, add_job, read_job

URL = "https://receiver.example/hooks"
RECEIVED = Answer(204, None, 0.1)
AWAY = Answer(None, "It is away.", 10)


def add(database: Database, url: str | None = URL, **columns: Any) -> str:
    with database.write() as session:
        return add_job(session, webhook_url=url, **columns)


def add_batch(database: Database, size: int) -> tuple[str, list[str]]:
    with database.write() as session:
        batch = Batch(rejected=[])
        session.add(batch)
        session.flush()
        images = [add_image(session, stored_at=None) for _ in range(size)]
        options = JobOptions(MODEL, webhook_url=URL)
        queued = jobs.submit(session, images, options, max_attempts=3, batch=batch)
        return batch.id, [job.id for job in queued]


def caption(database: Database, *job_ids: str) -> None:
    """Claim everything; caption these, and give back the rest."""
    with database.write() as session:
        claim = jobs.claim(session, MODEL, limit=100, lease_s=60)
        assert claim is not None
        captions = {job_id: [CaptionText("A dog.", -0.5)] for job_id in job_ids}
        assert jobs.succeed(session, claim.token, captions, model_revision="r") == set(job_ids)
        jobs.give_back(session, claim.token, [job.id for job in claim.jobs])


def end(database: Database, job_id: str) -> None:
    with database.write() as session:
        jobs.cancel(session, job_id)


def take(database: Database) -> Message | None:
    with database.write() as session:
        return webhooks.take_due(session)


def taken(database: Database) -> Message:
    message = take(database)
    assert message is not None
    return message


def record(database: Database, message: Message, answer: Answer) -> DeliveryStatus | None:
    with database.write() as session:
        return webhooks.record(session, message, answer)


def deliveries(database: Database) -> list[WebhookDelivery]:
    with database.read() as session:
        return list(webhooks.list_deliveries(session, limit=100))


def pass_time(database: Database) -> None:
    """Whatever is to come later may come now."""
    with database.write() as session:
        session.execute(update(WebhookDelivery).values(next_at=db_now(-0.001)))


# --- what is said -------------------------------------------------------------------------


def test_a_job_says_that_it_has_succeeded(database: Database) -> None:
    job_id = add(database)
    assert take(database) is None
    caption(database, job_id)
    message = taken(database)
    assert (message.url, message.attempt) == (URL, 1)
    body = json.loads(message.body)
    finished_at = read_job(database, job_id).finished_at
    assert finished_at is not None
    assert body["type"] == "job.succeeded"
    assert body["timestamp"] == finished_at.isoformat(timespec="milliseconds")
    assert body["data"]["id"] == job_id
    assert body["data"]["caption"] == "A dog."
    assert body["data"]["captions"] == [
        {"text": "A dog.", "mean_log_probability": -0.5, "model_revision": "r"}
    ]
    assert take(database) is None


def test_a_job_says_why_it_failed_or_that_it_was_cancelled(database: Database) -> None:
    failed, cancelled = add(database), add(database)
    with database.write() as session:
        claim = jobs.claim(session, MODEL, limit=1, lease_s=60)
        assert claim is not None
        jobs.fail(session, claim.token, failed, code="image_missing", message="It is gone.")
    end(database, cancelled)
    said = [json.loads(taken(database).body) for _ in range(2)]
    bodies = {body["data"]["id"]: body for body in said}
    assert bodies[failed]["type"] == "job.failed"
    assert bodies[failed]["data"]["error"] == {"code": "image_missing", "message": "It is gone."}
    assert bodies[cancelled]["type"] == "job.cancelled"


def test_a_job_of_a_dead_worker_says_so_too(database: Database) -> None:
    job_id = add(database, status=JobStatus.RUNNING, attempts=3, lease_expires_at=db_now(-1))
    with database.write() as session:
        assert jobs.expire_leases(session)[1] == {job_id}
    assert json.loads(taken(database).body)["data"]["error"]["code"] == "crashed"


def test_who_asked_for_nothing_is_told_nothing(database: Database) -> None:
    end(database, add(database, url=None))
    assert take(database) is None
    assert deliveries(database) == []


def test_what_is_rolled_back_has_not_been_said(database: Database) -> None:
    job_id = add(database)
    with database.write() as session:
        jobs.cancel(session, job_id)
        session.rollback()
    assert deliveries(database) == []


def test_a_batch_says_once_that_its_last_job_has_ended(database: Database) -> None:
    batch_id, job_ids = add_batch(database, 3)
    caption(database, *job_ids[:1])
    assert take(database) is None
    end(database, job_ids[1])
    assert take(database) is None
    caption(database, job_ids[2])
    body = json.loads(taken(database).body)
    assert body["type"] == "batch.finished"
    assert body["data"]["id"] == batch_id
    assert body["data"]["progress"] == {"total": 3, "succeeded": 2, "failed": 0, "cancelled": 1}
    assert len(deliveries(database)) == 1


def test_a_job_that_is_tried_again_says_only_how_it_ended(database: Database) -> None:
    job_id = add(database)
    end(database, job_id)
    with database.write() as session:
        jobs.retry(session, job_id)
    assert take(database) is None
    caption(database, job_id)
    assert json.loads(taken(database).body)["type"] == "job.succeeded"
    assert len(deliveries(database)) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("of_batch", [False, True])
def test_what_is_tried_again_while_its_message_is_taken_up_says_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, of_batch: bool
) -> None:
    job_id = add_batch(database, 1)[1][0] if of_batch else add(database)
    end(database, job_id)
    unhindered = webhooks._body

    def too_late(*arguments: Any) -> bytes | None:
        monkeypatch.undo()
        with database.write() as session:
            again = update(Job).where(Job.id == job_id)
            session.execute(again.values(status=JobStatus.QUEUED, finished_at=None))
        return unhindered(*arguments)

    monkeypatch.setattr(webhooks, "_body", too_late)
    assert take(database) is None
    assert [each.status for each in deliveries(database)] == [DeliveryStatus.PENDING]
    end(database, job_id)
    message = taken(database)
    assert message.attempt == 1
    assert json.loads(message.body)["type"] in ("job.cancelled", "batch.finished")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_jobs_that_are_tried_again_and_end_at_once_say_once_that_their_batch_has(
    database: Database,
) -> None:
    _, job_ids = add_batch(database, 2)
    for job_id in job_ids:
        end(database, job_id)
    record(database, taken(database), RECEIVED)
    line = Barrier(2)

    def try_again(job_id: str) -> None:
        line.wait()
        with database.write() as session:
            jobs.retry(session, job_id)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(try_again, job_ids))
    with database.write() as first, database.write() as second:
        jobs.cancel(first, job_ids[0])
        jobs.cancel(second, job_ids[1])
    assert json.loads(taken(database).body)["type"] == "batch.finished"
    assert take(database) is None


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_who_tries_a_job_again_waits_for_who_promises_something_of_its_batch(
    database: Database,
) -> None:
    """And holds no job of it meanwhile: who removes it has the batch, and waits for its jobs."""
    batch_id, (job_id,) = add_batch(database, 1)
    end(database, job_id)

    def try_again() -> None:
        with database.write() as session:
            jobs.retry(session, job_id)

    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            webhooks.hold(session, batch_id)
            trying = pool.submit(try_again)
            with pytest.raises(TimeoutError):
                trying.result(0.5)
            row = select(Job.id).where(Job.id == job_id).with_for_update(nowait=True)
            assert session.scalar(row) == job_id
        trying.result(10)
    assert read_job(database, job_id).status == JobStatus.QUEUED


@pytest.mark.parametrize("of_batch", [False, True])
def test_what_is_tried_again_has_all_attempts_and_no_wait_for_its_message(
    database: Database, of_batch: bool
) -> None:
    job_id = add_batch(database, 1)[1][0] if of_batch else add(database)
    end(database, job_id)
    record(database, taken(database), AWAY)
    with database.write() as session:
        jobs.retry(session, job_id)
    assert take(database) is None
    end(database, job_id)
    assert taken(database).attempt == 1
    assert len(deliveries(database)) == 1


@pytest.mark.parametrize("of_batch", [False, True])
def test_of_a_message_that_was_on_its_way_when_its_job_was_tried_again_no_more_is_sent(
    database: Database, of_batch: bool
) -> None:
    job_id = add_batch(database, 1)[1][0] if of_batch else add(database)
    end(database, job_id)
    overtaken = taken(database)
    with database.write() as session:
        jobs.retry(session, job_id)
    end(database, job_id)
    assert record(database, overtaken, AWAY) is None
    assert taken(database).id != overtaken.id
    assert take(database) is None


def test_what_was_received_is_not_unsaid_when_a_job_is_tried_again(database: Database) -> None:
    job_id = add(database)
    _, (of_batch,) = add_batch(database, 1)
    for each in (job_id, of_batch):
        end(database, each)
    for _ in range(2):
        record(database, taken(database), RECEIVED)
    for each in (job_id, of_batch):
        with database.write() as session:
            jobs.retry(session, each)
        end(database, each)
    again = [json.loads(taken(database).body)["type"] for _ in range(2)]
    assert sorted(again) == ["batch.finished", "job.cancelled"]
    assert len(deliveries(database)) == 4


def test_what_is_deleted_is_not_said(database: Database) -> None:
    job_id = add(database)
    end(database, job_id)
    with database.write() as session:
        session.delete(session.get_one(Job, job_id))
    assert take(database) is None
    assert deliveries(database) == []


# --- when, and how often ------------------------------------------------------------------


def test_what_was_received_is_not_sent_again(database: Database) -> None:
    end(database, add(database))
    assert record(database, taken(database), RECEIVED) == DeliveryStatus.DELIVERED
    pass_time(database)
    assert take(database) is None
    (delivery,) = deliveries(database)
    assert [attempt["status_code"] for attempt in delivery.log] == [204]


def test_it_is_tried_for_a_day_under_one_id_and_then_given_up(database: Database) -> None:
    end(database, add(database))
    ids = set()
    for attempt in range(1, len(RETRY_DELAYS_S) + 2):
        message = taken(database)
        assert message.attempt == attempt
        ids.add(message.id)
        status = record(database, message, AWAY)
        assert take(database) is None
        pass_time(database)
    assert status == DeliveryStatus.FAILED
    assert len(ids) == 1
    assert take(database) is None
    assert 20 * 3600 < sum(RETRY_DELAYS_S) < 28 * 3600
    (delivery,) = deliveries(database)
    assert {attempt["error"] for attempt in delivery.log} == {"It is away."}


def test_the_wait_grows(database: Database) -> None:
    end(database, add(database))
    waits = []
    for _ in range(2):
        record(database, taken(database), AWAY)
        with database.read() as session:
            next_at, now = session.execute(select(WebhookDelivery.next_at, db_now())).one()
        waits.append((next_at - now).total_seconds())
        pass_time(database)
    assert waits[0] <= RETRY_DELAYS_S[0] < waits[1] <= RETRY_DELAYS_S[1]


def test_who_does_not_want_it_is_not_asked_again(database: Database) -> None:
    end(database, add(database))
    gone = replace(AWAY, status_code=410, hopeless=True)
    assert record(database, taken(database), gone) == DeliveryStatus.FAILED


def test_what_a_dead_sender_had_in_hand_is_sent_again(database: Database) -> None:
    """At least once: the receiver may have got it."""
    end(database, add(database))
    first = taken(database)
    assert take(database) is None
    with database.write() as session:
        left = session.execute(select(WebhookDelivery.next_at, db_now())).one()
        assert 0 < (left[0] - left[1]).total_seconds() <= SENDING_S
    pass_time(database)
    second = taken(database)
    assert (second.id, second.attempt) == (first.id, 2)
    assert record(database, first, RECEIVED) is None  # too late: another has it
    assert record(database, second, RECEIVED) == DeliveryStatus.DELIVERED


def test_what_kills_its_senders_is_given_up(database: Database) -> None:
    end(database, add(database))
    for _ in range(len(RETRY_DELAYS_S) + 1):
        with database.write() as session:
            webhooks.tidy(session)
        taken(database)
        pass_time(database)
    with database.write() as session:
        webhooks.tidy(session)
    assert take(database) is None
    assert [delivery.status for delivery in deliveries(database)] == [DeliveryStatus.FAILED]


@pytest.mark.parametrize("url", ["no address", "http://[2606:4700::1111%25é]/"])
def test_an_address_that_nobody_checked_does_not_keep_a_job_from_ending(
    database: Database, url: str
) -> None:
    end(database, add(database, url))
    answer = messages.send(taken(database), ())
    assert (answer.received, answer.hopeless) == (False, True)


def test_a_slow_host_holds_up_nobody_else(database: Database) -> None:
    for _ in range(5):
        end(database, add(database, "https://slow.example/"))
    first = taken(database)
    end(database, add(database, "https://quick.example/"))
    assert (first.url, taken(database).url) == ("https://slow.example/", "https://quick.example/")


def test_text_that_a_database_refuses_does_not_stop_it(database: Database) -> None:
    end(database, add(database))
    record(database, taken(database), replace(AWAY, error="a\0b\udcff"))
    (delivery,) = deliveries(database)
    assert delivery.log[0]["error"].startswith("a")


def test_what_is_long_over_is_forgotten(database: Database) -> None:
    for _ in range(3):
        end(database, add(database))
    with database.write() as session:
        for _ in range(2):
            message = webhooks.take_due(session)
            assert message is not None
            webhooks.record(session, message, RECEIVED)
        old = update(WebhookDelivery).values(created_at=db_now(-KEPT_S - 1))
        session.execute(old.where(WebhookDelivery.id != message.id))
        webhooks.tidy(session)
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 2
        assert webhooks.count_open(session) == 1  # still to be said, however old


# --- for their owner ----------------------------------------------------------------------


def test_it_is_sent_again_on_demand(database: Database) -> None:
    end(database, add(database))
    first = taken(database)
    with pytest.raises(WrongState), database.write() as session:
        webhooks.redeliver(session, first.id)
    record(database, first, RECEIVED)
    with database.write() as session:
        webhooks.redeliver(session, first.id)
    again = taken(database)
    assert (again.id, again.attempt, again.body) == (first.id, 1, first.body)
    record(database, again, AWAY)
    (delivery,) = deliveries(database)
    assert [attempt["status_code"] for attempt in delivery.log] == [204, None]
    with pytest.raises(DeliveryNotFound), database.write() as session:
        webhooks.redeliver(session, new_id())


def test_each_owner_has_a_secret_of_their_own(database: Database) -> None:
    for owner in ("anna", "bert", "anna"):
        end(database, add(database, owner=owner))
    with database.write() as session:
        anna = webhook_secrets.secret_of(session, "anna")
        bert = webhook_secrets.secret_of(session, "bert")
        assert webhook_secrets.secret_of(session, "anna") == anna
    assert anna.startswith("whsec_")
    used = sorted(taken(database).secrets for _ in range(3))
    assert used == sorted([(anna,), (anna,), (bert,)])


def test_who_ask_for_it_first_at_once_get_the_same(database: Database) -> None:
    line = Barrier(4)

    def ask(_: int) -> str:
        line.wait()
        with database.write() as session:
            return webhook_secrets.secret_of(session, "anna")

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1


def test_after_a_change_the_old_secret_signs_for_a_day(database: Database) -> None:
    for _ in range(2):
        end(database, add(database))
    with database.write() as session:
        old = webhook_secrets.secret_of(session, "")
        new = webhook_secrets.change_secret(session, "")
        assert webhook_secrets.secret_of(session, "") == new != old
    assert taken(database).secrets == (new, old)
    with database.write() as session:
        row = update(WebhookSecret).values(changed_at=db_now(-25 * 3600))
        session.execute(row)
    assert taken(database).secrets == (new,)


def test_a_secret_that_receivers_have_signs_for_its_day_however_often_it_is_changed(
    database: Database,
) -> None:
    """As by whoever asks again because the answer was lost."""
    with database.write() as session:
        old = webhook_secrets.secret_of(session, "")
        lost = webhook_secrets.change_secret(session, "")
        session.execute(update(WebhookSecret).values(changed_at=db_now(-23 * 3600)))
        new = webhook_secrets.change_secret(session, "")
        assert webhook_secrets.in_force(session, "") == [new, old]
        assert lost not in (new, old)
        changed_at, now = session.execute(select(WebhookSecret.changed_at, db_now())).one()
        assert (now - changed_at).total_seconds() > 22 * 3600
        session.execute(update(WebhookSecret).values(changed_at=db_now(-25 * 3600)))
        newest = webhook_secrets.change_secret(session, "")
        assert webhook_secrets.in_force(session, "") == [newest, new]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "receiver",
        "ftp://receiver.example/",
        "https://user:secret@receiver.example/",
        "http://127.0.0.1/",
        "http://localhost:3000/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest",
        "http://xn--a/",
        "http://[2606:4700::1111%25é]/",
        "https://receiver.example/" + "a" * 2000,
    ],
)
def test_an_address_that_leads_nowhere_good_is_refused_at_once(url: str) -> None:
    with pytest.raises(WebhookUrlRefused):
        webhooks.check_url(url, ())


@pytest.mark.parametrize("url", ["http://127.0.0.1:3000/", "http://localhost:3000/", URL])
def test_an_address_in_a_network_that_is_named_is_taken(url: str) -> None:
    webhooks.check_url(url, [IPv4Network("127.0.0.0/8")])
