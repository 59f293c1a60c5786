"""The reference of the API for people."""

from __future__ import annotations

from flask.testing import FlaskClient


def test_it_names_every_operation_and_every_schema(client: FlaskClient) -> None:
    page = client.get("/api/docs")
    assert page.status_code == 200
    spec = client.get("/api/openapi.json").json
    for path, methods in spec["paths"].items():
        for method in methods:
            assert f"<b>{method.upper()}</b> {path}</h2>" in page.text
    for name in spec["components"]["schemas"]:
        assert f'id="schema-{name}"' in page.text


def test_nothing_of_it_comes_from_elsewhere_or_runs(client: FlaskClient) -> None:
    text = client.get("/api/docs").text
    for part in ("<script", "<style", " style=", '<link rel="stylesheet" href="http'):
        assert part not in text


def test_its_links_lead_somewhere(client: FlaskClient) -> None:
    text = client.get("/api/docs").text
    targets = {part.partition('"')[0] for part in text.split('href="#')[1:]}
    anchors = {part.partition('"')[0] for part in text.split(' id="')[1:]}
    assert "schema-Job" in targets
    assert targets <= anchors


def test_the_other_pages_link_to_it(client: FlaskClient) -> None:
    assert 'href="/api/docs"' in client.get("/").text
