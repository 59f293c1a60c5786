from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from captioning.queue import Queue
from tests.factories import photo
from tests.web.sending import NOTHING, kept, part

FROM_ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
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
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


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
