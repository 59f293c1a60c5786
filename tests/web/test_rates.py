"""Rate limits, counted in a real Valkey by two applications at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from captioning import access
from captioning.access import Limits
from captioning.models import Role
from captioning.queue import Queue
from captioning.settings import Settings
from tests.factories import photo
from tests.servers import Valkey
from tests.web.conftest import ReadingClient
from tests.web.keys import bearer, make_key, sign_in
from tests.web.sending import form, part
from web import counting, create_app
from web.counting import Counts

Make = Callable[..., FlaskClient]


@pytest.fixture
def make(settings: Settings, valkey: Valkey) -> Iterator[Make]:
    apps: list[APIFlask] = []

    def make_client(**changes: object) -> FlaskClient:
        wanted = {"broker_url": valkey.url, "access": "keys", "rate_limit": "3/hour"} | changes
        app = create_app(settings.model_copy(update=wanted))
        app.test_client_class = ReadingClient
        apps.append(app)
        return app.test_client()

    yield make_client
    for app in apps:
        app.extensions["captioning"].close()
        app.extensions["captioning.counts"].close()


def queue_of(client: FlaskClient) -> Queue:
    found: Queue = client.application.extensions["captioning"]
    return found


def limited(client: FlaskClient, name: str, limits: Limits) -> dict[str, str]:
    with queue_of(client).database.write() as session:
        return bearer(access.create_key(session, name, Role.USER, limits))


def test_a_key_may_ask_so_often_and_is_told_how_it_stands(make: Make) -> None:
    client = make()
    anna, bert = (bearer(make_key(queue_of(client), name)) for name in ("anna", "bert"))
    for left in (2, 1, 0):
        answer = client.get("/api/v1/jobs", headers=anna)
        assert answer.status_code == 200
        assert answer.headers["RateLimit-Policy"] == '"requests";q=3;w=3600'
        assert answer.headers["RateLimit"].startswith(f'"requests";r={left};t=')
    refused = client.get("/api/v1/jobs", headers=anna)
    assert (refused.status_code, refused.json["code"]) == (429, "rate_limited")
    assert refused.mimetype == "application/problem+json"
    assert 0 < int(refused.headers["Retry-After"]) <= 7200
    assert refused.headers["RateLimit"].startswith('"requests";r=0;t=')
    assert client.get("/api/v1/jobs", headers=bert).status_code == 200


def test_all_web_servers_count_together(make: Make) -> None:
    one, other = make(), make()
    anna = bearer(make_key(queue_of(one), "anna"))
    statuses = [client.get("/api/v1/jobs", headers=anna).status_code for client in (one, other) * 2]
    assert statuses == [200, 200, 200, 429]


def test_a_key_and_its_browsers_count_together(make: Make) -> None:
    client = make()
    secret = make_key(queue_of(client), "anna")
    sign_in(client, secret)
    assert client.get("/gallery").status_code == 200
    for _ in range(2):
        client.get("/api/v1/jobs", headers=bearer(secret))
    page = client.get("/gallery")
    assert page.status_code == 429
    assert "Come back in" in page.text


def test_a_key_may_have_a_rate_of_its_own(make: Make) -> None:
    client = make()
    tight = limited(client, "tight", Limits(rate="1/hour"))
    free = limited(client, "free", Limits(rate="off"))
    assert [client.get("/api/v1/jobs", headers=tight).status_code for _ in range(2)] == [200, 429]
    answers = [client.get("/api/v1/jobs", headers=free) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert "RateLimit" not in answers[0].headers


def test_who_shows_no_key_in_force_is_counted_by_address(make: Make) -> None:
    client = make()
    for headers in ({}, bearer("cap_wrong"), bearer("cap_other")):
        assert client.get("/api/v1/jobs", headers=headers).status_code == 401
    assert client.get("/api/v1/jobs", headers=bearer("cap_third")).status_code == 429
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    assert client.get("/api/v1/jobs", environ_base=elsewhere).status_code == 401


def test_a_network_of_one_holder_is_one_address(make: Make) -> None:
    client = make(rate_limit="1/hour")
    for address, status in (
        ("2001:db8:1:2::1", 401),
        ("2001:db8:1:2:ffff::9", 429),
        ("2001:db8:1:3::1", 401),
        ("::ffff:192.0.2.7", 401),
        ("::ffff:192.0.2.8", 401),
        ("192.0.2.7", 429),
    ):
        asked = client.get("/api/v1/jobs", environ_base={"REMOTE_ADDR": address})
        assert asked.status_code == status


def test_attempts_to_sign_in_are_counted_by_address(make: Make) -> None:
    client = make(sign_in_limit="2/hour", rate_limit="off")
    secret = make_key(queue_of(client), "anna")
    for _ in range(2):
        assert client.post("/sign-in", data={"key": "cap_wrong"}).status_code == 401
    refused = client.post("/sign-in", data={"key": secret})
    assert refused.status_code == 429
    assert "Set-Cookie" not in refused.headers
    assert refused.headers["RateLimit-Policy"] == '"sign-in";q=2;w=3600'
    assert client.get("/api/v1/jobs", headers=bearer(secret)).status_code == 200


def test_open_access_is_limited_by_address_where_it_is_asked_for(make: Make) -> None:
    client = make(access="open", rate_limit="1/hour")
    assert [client.get("/gallery").status_code for _ in range(2)] == [200, 429]
    assert Settings().rate_limit == "off"
    assert Settings(access="keys").rate_limit == "1200/minute"


@pytest.mark.parametrize("path", ["/healthz", "/static/site.css", "/api/openapi.json", "/sign-in"])
def test_what_is_for_everybody_is_not_counted(make: Make, path: str) -> None:
    client = make(rate_limit="1/hour")
    assert {client.get(path).status_code for _ in range(3)} == {200}


def test_without_a_broker_all_are_let_in_and_it_is_logged_once(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Valkey()
    try:
        client = make(rate_limit="1/hour", access="open", broker_url=broker.url)
        assert [client.get("/gallery").status_code for _ in range(2)] == [200, 429]
        broker.stop()
        with caplog.at_level(logging.INFO, counting.__name__):
            assert {client.get("/gallery").status_code for _ in range(3)} == {200}
            assert len(caplog.records) == 1
            assert "not counted" in caplog.text
            broker.start()
            monkeypatch.setattr(counting, "AWAY_S", 0)
            client.application.extensions["captioning.counts"]._away_until = 0
            assert [client.get("/gallery").status_code for _ in range(2)] == [200, 429]
            assert "counted again" in caplog.text
    finally:
        broker.close()


def test_a_broker_that_cannot_count_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert Counts("amqp://somewhere").take("1/hour", ("x",)) is None
    assert "neither Redis nor Valkey" in caplog.text


def test_a_password_of_the_brokers_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert Counts("redis://:hunter2@127.0.0.1:1/0").take("1/hour", ("x",)) is None
    assert "not counted" in caplog.text
    assert "hunter2" not in caplog.text


def test_the_images_of_a_day_are_used_up(make: Make) -> None:
    client = make(rate_limit="off")
    anna = limited(client, "anna", Limits(images_per_day=1))
    sent = [
        client.post("/api/v1/jobs", headers=anna, **form("image", [part(photo())]))
        for _ in range(2)
    ]
    assert [answer.status_code for answer in sent] == [202, 429]
    assert sent[1].json["code"] == "quota_exceeded"
    assert 0 < int(sent[1].headers["Retry-After"]) <= 24 * 3600
    assert client.get("/api/v1/jobs", headers=anna).status_code == 200
