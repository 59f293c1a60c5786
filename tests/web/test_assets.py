from __future__ import annotations

import gzip

import pytest
from flask.testing import FlaskClient

GZIP = {"Accept-Encoding": "gzip, deflate, br"}


@pytest.mark.parametrize("name", ["site.css", "upload.js", "vendor/htmx-2.0.11.min.js", "icon.svg"])
def test_script_and_style_are_compressed_for_who_takes_it(client: FlaskClient, name: str) -> None:
    plain = client.get(f"/static/{name}", headers={"Accept-Encoding": "identity"})
    packed = client.get(f"/static/{name}", headers=GZIP)
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) == len(packed.data)
    assert gzip.decompress(packed.data) == plain.data
    for answer in (plain, packed):
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.mimetype == plain.mimetype


def test_what_a_browser_has_is_not_sent_again(client: FlaskClient) -> None:
    first = client.get("/static/site.css", headers=GZIP)
    again = client.get("/static/site.css", headers={**GZIP, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("refusal", ["identity", "gzip;q=0", "br", ""])
def test_who_does_not_take_it_gets_it_plain(client: FlaskClient, refusal: str) -> None:
    answer = client.get("/static/site.css", headers={"Accept-Encoding": refusal})
    assert b"color-scheme" in answer.data


def test_a_part_is_a_part_of_the_plain_file(client: FlaskClient) -> None:
    answer = client.get("/static/site.css", headers={**GZIP, "Range": "bytes=0-9"})
    assert (answer.status_code, len(answer.data)) == (206, 10)
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/api/openapi.json", "/healthz"])
def test_answers_are_not_compressed(client: FlaskClient, path: str) -> None:
    assert "Content-Encoding" not in client.get(path, headers=GZIP).headers


def test_a_head_says_what_a_plain_get_would(client: FlaskClient) -> None:
    answer = client.head("/static/site.css", headers=GZIP)
    assert int(answer.headers["Content-Length"]) > 10_000
