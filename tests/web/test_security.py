from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from captioning.queue import Queue
from captioning.settings import Settings
from tests.factories import photo
from tests.web.sending import NOTHING, kept, part
from web import create_app

FROM_ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
]
FROM_HERE = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://localhost"},
    {"Origin": "https://localhost"},  # TLS ends at a proxy
]


@pytest.mark.parametrize("headers", FROM_ELSEWHERE)
@pytest.mark.parametrize("path", ["/", "/api/v1/batches", "/samples/cat", "/jobs/x/cancel"])
def test_a_form_of_another_site_is_refused(
    client: FlaskClient, queue: Queue, path: str, headers: dict[str, str]
) -> None:
    answer = client.post(path, data={"images": part(photo())}, headers=headers)
    assert answer.status_code == 403
    assert kept(queue) == NOTHING


@pytest.mark.parametrize("headers", FROM_HERE)
def test_our_own_forms_and_programs_are_let_in(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    answer = client.post("/", data={"images": part(photo())}, headers=headers)
    assert answer.status_code == 303


def test_a_link_from_another_site_may_be_followed(client: FlaskClient) -> None:
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/gallery", "/nothing", "/api/v1/jobs", "/static/site.css"])
def test_every_answer_tells_browsers_what_to_refuse(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_over_tls_browsers_are_told_to_stay_there(client: FlaskClient) -> None:
    assert "Strict-Transport-Security" not in client.get("/").headers
    over_tls = client.get("/", base_url="https://localhost")
    assert over_tls.headers["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "[", "a b", "127.1"]
)
def test_a_name_that_is_not_ours_is_refused(client: FlaskClient, queue: Queue, host: str) -> None:
    for answer in (
        client.get("/api/v1/jobs", headers={"Host": host}),
        client.post("/", data={"images": part(photo())}, headers={"Host": host}),
        client.get("/static/site.css", headers={"Host": host}),
        client.get("/nothing", headers={"Host": host}),
    ):
        assert answer.status_code in (400, 421)
    assert kept(queue) == NOTHING
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_refused_name_is_told_what_to_set(client: FlaskClient) -> None:
    answer = client.get("/api/v1/jobs", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json["code"]) == (421, "host_refused")
    assert "CAPTIONING_ALLOWED_HOSTS" in answer.json["detail"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:8000", "[::1]:8000"])
def test_this_machines_own_names_and_addresses_are_ours(client: FlaskClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_names_are_ours_that_are_named(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"allowed_hosts": ("captions.example", ".lan")}))
    statuses = {
        host: app.test_client().get("/healthz/..", headers={"Host": host}).status_code
        for host in ("captions.example", "nas.lan:80", "x.captions.example", "localhost")
    }
    app.extensions["captioning"].close()
    assert statuses == {
        "captions.example": 404,
        "nas.lan:80": 404,
        "x.captions.example": 421,
        "localhost": 421,
    }


def test_with_keys_any_name_is_ours_until_one_is_named() -> None:
    """A page of somebody else's has no cookie of ours there."""
    assert Settings(access="keys").allowed_hosts == ("*",)
    assert Settings(host="laptop").allowed_hosts == ("localhost", "laptop")


@pytest.mark.parametrize("path", ["/", "/gallery", "/nothing"])
def test_no_page_has_script_or_style_inside_or_from_elsewhere(
    client: FlaskClient, path: str
) -> None:
    text = client.get(path).text
    assert "<style" not in text
    assert " style=" not in text
    assert "<script>" not in text
    assert "//" not in text.replace("<!doctype html>", "")


def test_a_filename_cannot_smuggle_markup_into_a_page(client: FlaskClient) -> None:
    sent = part(photo(), "<script>alert(1)</script>.jpg")
    location = client.post("/", data={"images": sent}).location
    assert "<script>alert" not in client.get(location).text
