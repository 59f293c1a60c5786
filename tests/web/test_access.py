"""CAPTIONING_ACCESS=keys: bearer tokens for programs, sign-in for people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import httpx
import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient

from captioning import AsyncClient, Client
from captioning.errors import KeyRefused
from captioning.models import Role
from captioning.queue import Queue
from captioning.settings import Settings
from tests.factories import photo
from tests.web.conftest import ReadingClient
from tests.web.keys import bearer, make_key, revoke, sign_in
from tests.web.outcomes import caption
from tests.web.sending import form, part
from web import create_app


@pytest.fixture
def app(settings: Settings) -> Iterator[APIFlask]:
    app = create_app(settings.model_copy(update={"access": "keys"}))
    app.test_client_class = ReadingClient
    yield app
    app.extensions["captioning"].close()


@pytest.fixture
def anna(queue: Queue) -> str:
    return make_key(queue, "anna")


@pytest.fixture
def bert(queue: Queue) -> str:
    return make_key(queue, "bert")


def test_a_program_without_a_key_is_told_how_to_send_one(client: FlaskClient) -> None:
    answer = client.get("/api/v1/jobs")
    assert (answer.status_code, answer.json["code"]) == (401, "key_required")
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer KEY" in answer.json["detail"]


@pytest.mark.parametrize("sent", ["Bearer cap_wrong", "Bearer", "Basic YTpi", "Bearer \xff"])
def test_a_wrong_key_is_refused(client: FlaskClient, anna: str, sent: str) -> None:
    answer = client.get("/api/v1/jobs", headers={"Authorization": sent})
    assert answer.status_code == 401
    assert answer.json["code"] in ("key_refused", "key_required")


def test_a_key_is_good_until_it_is_revoked(client: FlaskClient, queue: Queue, anna: str) -> None:
    assert client.get("/api/v1/jobs", headers=bearer(anna)).status_code == 200
    revoke(queue, "anna")
    answer = client.get("/api/v1/jobs", headers=bearer(anna))
    assert (answer.status_code, answer.json["code"]) == (401, "key_refused")


def test_a_cookie_is_no_help_to_a_wrong_key(client: FlaskClient, anna: str) -> None:
    sign_in(client, anna)
    assert client.get("/api/v1/jobs", headers=bearer("cap_wrong")).status_code == 401
    assert client.get("/api/v1/jobs").status_code == 200


def test_an_upload_without_a_key_is_not_read(client: FlaskClient) -> None:
    answer = client.post("/api/v1/jobs", **form("image", [part(photo())]))
    assert answer.status_code == 401


def test_a_person_signs_in_and_goes_on_to_where_they_were_going(
    client: FlaskClient, anna: str
) -> None:
    answer = client.get("/gallery?show=all")
    assert (answer.status_code, answer.location) == (303, "/sign-in?after=/gallery?show%3Dall")
    page = client.get(answer.location)
    assert page.status_code == 200
    assert 'value="/gallery?show=all"' in page.text
    entered = client.post("/sign-in", data={"key": f" {anna}\n", "after": "/gallery?show=all"})
    assert (entered.status_code, entered.location) == (303, "/gallery?show=all")
    gallery = client.get(entered.location)
    assert gallery.status_code == 200
    assert "Sign out" in gallery.text
    assert "anna" in gallery.text


def test_the_cookie_is_out_of_reach(client: FlaskClient, anna: str) -> None:
    cookie = client.post("/sign-in", data={"key": anna}).headers["Set-Cookie"]
    assert cookie.startswith("captioning=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert anna not in cookie
    over_tls = client.post("/sign-in", data={"key": anna}, base_url="https://localhost")
    cookie = over_tls.headers["Set-Cookie"]
    assert cookie.startswith("__Host-captioning=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_a_wrong_key_is_asked_for_again(client: FlaskClient) -> None:
    answer = client.post("/sign-in", data={"key": "cap_wrong", "after": "/gallery"})
    assert answer.status_code == 401
    assert "unknown, or has been revoked" in answer.text
    assert "cap_wrong" not in answer.text
    assert 'value="/gallery"' in answer.text
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "after", ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "x"]
)
def test_signing_in_leads_to_no_other_site(client: FlaskClient, anna: str, after: str) -> None:
    answer = client.post("/sign-in", data={"key": anna, "after": after})
    assert answer.location == "/"


def test_signing_out_ends_it_on_the_server_too(
    client: FlaskClient, app: APIFlask, anna: str
) -> None:
    sign_in(client, anna)
    cookie = client.get_cookie("captioning")
    assert cookie is not None
    answer = client.post("/sign-out")
    assert (answer.status_code, answer.location) == (303, "/sign-in")
    assert answer.headers["Clear-Site-Data"] == '"cache"'
    assert client.get("/gallery").status_code == 303
    thief = app.test_client()
    thief.set_cookie("captioning", cookie.value)
    assert thief.get("/gallery").status_code == 303


def test_a_form_that_comes_too_late_leads_to_the_sign_in_page(client: FlaskClient) -> None:
    answer = client.post("/", **form("images", [part(photo())]))
    assert answer.status_code == 401
    assert "Sign in first" in answer.text


def test_a_page_that_asks_for_its_news_is_led_to_the_sign_in_page(client: FlaskClient) -> None:
    answer = client.get(f"/jobs/{'0' * 32}/outcome", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/sign-in")


def test_each_sees_their_own(client: FlaskClient, queue: Queue, anna: str, bert: str) -> None:
    boss = make_key(queue, "boss", Role.ADMIN)
    made = client.post("/api/v1/jobs", headers=bearer(anna), **form("image", [part(photo())]))
    assert made.status_code == 202
    caption(queue, "a secret wall")
    for secret, status, count in ((anna, 200, 1), (bert, 404, 0), (boss, 200, 1)):
        assert client.get(made.location, headers=bearer(secret)).status_code == status
        listed = client.get("/api/v1/jobs", headers=bearer(secret)).json["jobs"]
        assert len(listed) == count


def test_what_is_somebody_elses_looks_like_what_never_was(
    client: FlaskClient, anna: str, bert: str
) -> None:
    made = client.post("/api/v1/jobs", headers=bearer(anna), **form("image", [part(photo())]))
    job_id = made.json["id"]
    theirs = client.get(f"/api/v1/jobs/{job_id}", headers=bearer(bert))
    nobodys = client.get(f"/api/v1/jobs/{'0' * 32}", headers=bearer(bert))
    assert theirs.text.replace(job_id, "ID") == nobodys.text.replace("0" * 32, "ID")


@pytest.mark.parametrize("path", ["/healthz", "/api/openapi.json", "/static/site.css", "/sign-in"])
def test_some_things_need_no_key(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/api/nothing"])
def test_what_there_is_not_needs_a_key_too(client: FlaskClient, anna: str, path: str) -> None:
    assert client.get(path).status_code in (303, 401)
    assert client.get(path, headers=bearer(anna)).status_code == 404


def test_no_secret_is_logged(
    client: FlaskClient, queue: Queue, anna: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client.post("/api/v1/jobs", headers=bearer(anna), **form("image", [part(photo())]))
    client.get("/api/v1/jobs", headers=bearer("cap_wrong"))
    sign_in(client, anna)
    cookie = client.get_cookie("captioning")
    assert cookie is not None
    client.get("/gallery")
    client.post("/sign-in", data={"key": "cap_wrong"})
    assert caplog.records
    for secret in (anna, "cap_wrong", cookie.value):
        assert secret not in caplog.text


class InProcess(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Carries requests to the application itself."""

    def __init__(self, app: APIFlask) -> None:
        self._wsgi = httpx.WSGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._wsgi.handle_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


def test_our_clients_show_their_key(app: APIFlask, anna: str) -> None:
    way = InProcess(app)
    with Client("http://localhost", key=anna, transport=way) as client:
        job = client.submit(photo())
        assert [found.id for found in client.jobs()] == [job.id]
    with (
        Client("http://localhost", key="cap_wrong", transport=way) as stranger,
        pytest.raises(KeyRefused),
    ):
        stranger.submit(photo())

    async def ask() -> str:
        async with AsyncClient("http://localhost", key=anna, transport=way) as client:
            return (await client.job(job.id)).id

    assert asyncio.run(ask()) == job.id
