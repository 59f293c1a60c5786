from __future__ import annotations

import io

import pytest
from flask.testing import FlaskClient
from PIL import Image

from tests.factories import photo
from tests.web.sending import part


@pytest.fixture
def image(client: FlaskClient) -> dict[str, str]:
    sent = part(photo((800, 600), comment=b"GPS 52.5 N 13.4 E"))
    found: dict[str, str] = client.post("/api/v1/jobs", data={"image": sent}).json["image"]
    return found


def test_the_stored_form_is_served_without_what_else_was_in_the_file(
    client: FlaskClient, image: dict[str, str]
) -> None:
    answer = client.get(image["url"])
    assert (answer.status_code, answer.mimetype) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(answer.data)).size == (800, 600)
    assert b"GPS" not in answer.data


def test_a_thumbnail_is_smaller(client: FlaskClient, image: dict[str, str]) -> None:
    answer = client.get(image["thumbnail_url"])
    assert max(Image.open(io.BytesIO(answer.data)).size) == 320


@pytest.mark.parametrize("which", ["url", "thumbnail_url"])
def test_browsers_may_keep_an_image(client: FlaskClient, image: dict[str, str], which: str) -> None:
    answer = client.get(image[which])
    assert "immutable" in answer.headers["Cache-Control"]
    assert "private" in answer.headers["Cache-Control"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again = client.get(image[which], headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("name", ["0" * 32, "x", "..%2fcaptioning.db", "%00"])
@pytest.mark.parametrize("folder", ["images", "thumbnails"])
def test_an_unknown_image_is_not_found(client: FlaskClient, folder: str, name: str) -> None:
    assert client.get(f"/{folder}/{name}.jpg").status_code == 404
