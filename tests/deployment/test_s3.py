"""Photographs in an S3 store: from the upload through the worker to the page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from captioning.errors import ImageNotFound, StorageUnavailable
from captioning.settings import Settings
from captioning.storage import Storage
from clipcap import Captioner
from tests import servers
from tests.factories import photo
from web import create_app
from worker.station import Station

BUCKET = "photographs"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a store with one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    httpx.put(f"{url}/{BUCKET}").raise_for_status()
    yield url
    server.stop()


@pytest.fixture(autouse=True)
def credentials(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def storage() -> Storage:
    return Storage(f"s3://{BUCKET}/a/folder")


def test_an_upload_is_captioned_and_shown(tiny_bundle: Path, tmp_path: Path) -> None:
    with servers.migrated_database("sqlite", tmp_path) as database_url:
        settings = Settings(
            data_dir=tmp_path,
            database_url=database_url,
            storage_url=f"s3://{BUCKET}",
            models={"tiny": str(tiny_bundle)},
        )
        app = create_app(settings)
        queue, client = app.extensions["captioning"], app.test_client()
        sent = client.post(
            "/api/v1/jobs", data={"image": (io.BytesIO(photo(colour="red")), "a.jpg")}
        )
        assert sent.status_code == 202
        station = Station(queue, {"tiny": Captioner.load(tiny_bundle)})
        station.work()
        job = client.get(sent.headers["Location"]).get_json()
        assert "red" in job["caption"]
        for kind in ("url", "thumbnail_url"):
            shown = client.get(job["image"][kind])
            assert shown.mimetype == "image/jpeg"
            assert shown.data.startswith(b"\xff\xd8")
        assert client.get("/readyz").get_json()["checks"]["storage"] == "ok"
        station.close()
        queue.close()
    assert not (tmp_path / "storage").exists()


def test_what_was_put_is_got_and_deleted(storage: Storage) -> None:
    storage.put("images/a.jpg", b"old")
    storage.put("images/a.jpg", b"new")
    assert storage.get("images/a.jpg") == b"new"
    storage.delete(["images/a.jpg", "images/never.jpg"])
    with pytest.raises(ImageNotFound, match=r"images/a\.jpg"):
        storage.get("images/a.jpg")


def test_a_bucket_that_does_not_exist_is_no_missing_image() -> None:
    storage = Storage("s3://nobody-made-it")
    for act in (
        lambda: storage.put("a", b"x"),
        lambda: storage.get("a"),
        lambda: storage.delete(["a"]),
    ):
        with pytest.raises(StorageUnavailable, match="bucket"):
            act()


def test_a_store_that_is_away_is_unavailable_in_one_line(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageUnavailable) as caught:
        storage.put("images/a.jpg", b"x")
    assert "\n" not in str(caught.value)
