from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest
from flask.testing import FlaskClient

from captioning.queue import Queue
from tests.factories import photo
from tests.web.outcomes import caption, fail
from tests.web.sending import form, part, photos
from web.api import exports

KINDS = {"csv": "text/csv", "jsonl": "application/jsonl", "zip": "application/zip"}


@pytest.fixture
def batch(client: FlaskClient, queue: Queue) -> str:
    """The address of a batch of three: two are captioned, the last has failed."""
    location = client.post("/api/v1/batches", data={"images": photos(3)}).headers["Location"]
    caption(queue, "a wall", limit=2)
    fail(queue, "No.")
    return str(location)


def test_a_batch_is_a_table_in_upload_order(client: FlaskClient, batch: str) -> None:
    answer = client.get(f"{batch}/export.csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"))))
    assert [(line["filename"], line["caption"], line["error"]) for line in lines] == [
        ("photo-0.jpg", "a wall", ""),
        ("photo-1.jpg", "a wall", ""),
        ("photo-2.jpg", "", "No."),
    ]


def test_a_batch_is_json_lines_of_its_jobs(client: FlaskClient, batch: str) -> None:
    lines = client.get(f"{batch}/export.jsonl").text.splitlines()
    assert [json.loads(line) for line in lines] == client.get(batch).json["jobs"]


def test_a_batch_is_an_archive_of_its_texts(client: FlaskClient, batch: str) -> None:
    job = client.get(batch).json["jobs"][0]["links"]["self"]
    client.patch(job, json={"caption": "our wall"})
    with zipfile.ZipFile(io.BytesIO(client.get(f"{batch}/export.zip").data)) as found:
        texts = {name: found.read(name).decode() for name in found.namelist()}
    assert texts == {"photo-0.txt": "our wall\n", "photo-1.txt": "a wall\n"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_has_a_name_of_ours(client: FlaskClient, kind: str) -> None:
    parts = [part(photo(), 'x"; filename=evil.exe\r\n.jpg')]
    batch = client.post("/api/v1/batches", **form("images", parts)).headers["Location"]
    answer = client.get(f"{batch}/export.{kind}")
    assert answer.mimetype == KINDS[kind]
    disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename=captions-20")
    assert disposition.endswith(f".{kind}")
    assert "evil" not in disposition
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_batch_is_read_in_parts_and_none_is_left_out(
    client: FlaskClient, batch: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = client.get(f"{batch}/export.{kind}").data
    for at_once in (1, 2, 3):
        monkeypatch.setattr(exports, "JOBS_AT_ONCE", at_once)
        assert client.get(f"{batch}/export.{kind}").data == whole


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_batch_is_not_found(client: FlaskClient, kind: str) -> None:
    assert client.get(f"/api/v1/batches/{'0' * 32}/export.{kind}").status_code == 404
