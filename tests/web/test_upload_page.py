from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from captioning import fetching
from captioning.queue import Queue, Upload
from tests.factories import photo
from tests.web.outcomes import start_worker
from tests.web.sending import BAD_FILES, NOTHING, bad_file, form, kept, part, photos
from web.samples import SAMPLES


def test_it_says_when_no_worker_runs(client: FlaskClient, queue: Queue) -> None:
    assert "No worker is running" in client.get("/").text
    start_worker(queue)
    assert "No worker is running" not in client.get("/").text


def test_a_form_post_leads_to_the_batch_page(client: FlaskClient) -> None:
    answer = client.post("/", data={"images": photos(2), "num_captions": "3"})
    assert answer.status_code == 303
    page = client.get(answer.location)
    assert page.status_code == 200
    assert "2 photographs" in page.text


def token(client: FlaskClient) -> str:
    found = re.search(r'name="once" value="([^"]+)"', client.get("/").text)
    assert found
    return found[1]


def send_form(client: FlaskClient, once: str, **fields: str) -> str:
    sent = form("images", [part(photo())], once=once, **fields)
    return str(client.post("/", **sent).location)


def test_a_form_that_is_sent_twice_makes_one_batch(client: FlaskClient, queue: Queue) -> None:
    once = token(client)
    assert send_form(client, once) == send_form(client, once)
    assert kept(queue) == (1, 1, 1, 2)


def test_another_choice_or_another_showing_of_the_page_makes_another_batch(
    client: FlaskClient, queue: Queue
) -> None:
    once, again = token(client), token(client)
    sent = [send_form(client, once), send_form(client, again)]
    sent.append(send_form(client, once, num_captions="2"))
    sent.append(client.post("/", **form("images", photos(1), once=once)).location)
    assert len(set(sent)) == 4


def test_what_was_deleted_may_be_sent_again(client: FlaskClient, queue: Queue) -> None:
    once = token(client)
    first = send_form(client, once)
    assert client.post(f"{first}/delete").status_code == 303
    assert send_form(client, once) != first
    assert kept(queue) == (1, 1, 1, 2)


def test_a_sample_that_is_clicked_twice_makes_one_batch(client: FlaskClient) -> None:
    once = token(client)
    sent = [
        client.post(f"/samples/{name}", data={"once": once}) for name in ("cat", "cat", "rocket")
    ]
    assert sent[0].location == sent[1].location != sent[2].location


def test_an_address_is_fetched_once(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(url: str, max_bytes: int) -> Upload:
        asked.append(url)
        return Upload("cat.jpg", photo())

    monkeypatch.setattr(fetching, "fetch", fetch)
    data = {"once": token(client), "image_url": "https://example.com/cat.jpg"}
    first, second = (client.post("/", data=data).location for _ in range(2))
    assert first == second
    assert len(asked) == 1


def test_greedy_finds_one_caption_whatever_else_was_chosen(client: FlaskClient) -> None:
    fields = {"decoding": "greedy", "num_captions": "3"}
    client.post("/", data={"images": photos(1), **fields})
    (job,) = client.get("/api/v1/jobs").json["jobs"]
    assert (job["decoding"], job["num_captions"]) == ("greedy", 1)


@pytest.mark.parametrize("data", [{}, {"images": part(b"", "")}], ids=["no part", "no choice"])
def test_an_empty_upload_is_told_so(
    client: FlaskClient, queue: Queue, data: dict[str, object]
) -> None:
    answer = client.post("/", data=data, content_type="multipart/form-data")
    assert answer.status_code == 400
    assert "Choose at least one image." in answer.text
    assert kept(queue) == NOTHING


def test_bad_files_only_show_the_page_again_with_each_reason(
    client: FlaskClient, queue: Queue
) -> None:
    parts = [part(bad_file(kind), f"{kind}.jpg") for kind in BAD_FILES]
    answer = client.post("/", **form("images", parts))
    assert answer.status_code == 422
    for kind, (_, _, words) in BAD_FILES.items():
        assert f"{kind}.jpg" in answer.text
        assert words in answer.text
    assert "<form" in answer.text
    assert kept(queue) == NOTHING


def test_of_twenty_files_three_broken_ones_are_listed(client: FlaskClient, queue: Queue) -> None:
    broken = ["zero-byte", "bomb", "truncated"]
    parts = photos(17) + [part(bad_file(kind), f"{kind}.jpg") for kind in broken]
    answer = client.post("/", data={"images": parts})
    assert answer.status_code == 303
    page = client.get(answer.location).text
    assert "17 photographs" in page
    assert "3 files were left out" in page
    assert all(BAD_FILES[kind][2] in page for kind in broken)
    assert kept(queue) == (17, 1, 17, 34)


@pytest.mark.parametrize(
    "fields", [{"model": "nobody"}, {"decoding": "dice"}, {"num_captions": "x"}, {"max_words": "0"}]
)
def test_a_wrong_option_shows_the_page_again(
    client: FlaskClient, queue: Queue, fields: dict[str, str]
) -> None:
    answer = client.post("/", data={"images": part(photo()), **fields})
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert kept(queue) == NOTHING


def test_far_too_many_files_are_not_called_too_large(client: FlaskClient, queue: Queue) -> None:
    # Fields are counted as files are, and leave no temporary file open.
    fields = {f"field-{number}": "x" for number in range(250)}
    answer = client.post("/", **form("images", [part(b"x")], **fields))
    assert answer.status_code == 413
    assert "At most 100 photographs, and 250 MB, at a time." in answer.text
    assert kept(queue) == NOTHING


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_shown_and_captioned_by_one_click(client: FlaskClient, name: str) -> None:
    assert client.get(f"/samples/{name}.jpg").mimetype == "image/jpeg"
    answer = client.post(f"/samples/{name}")
    assert answer.status_code == 303
    assert f"{name}.jpg" in client.get(answer.location).text


def test_samples_are_small(client: FlaskClient) -> None:
    assert all(len(client.get(f"/samples/{name}.jpg").data) <= 100_000 for name in SAMPLES)


@pytest.mark.parametrize("name", ["nobody", "..%2f__init__", "NOTICE"])
def test_an_unknown_sample_is_not_found(client: FlaskClient, queue: Queue, name: str) -> None:
    assert client.get(f"/samples/{name}.jpg").status_code == 404
    assert client.post(f"/samples/{name}").status_code == 404
    assert kept(queue) == NOTHING


def test_it_says_how_many_are_waiting(client: FlaskClient) -> None:
    assert "waiting just now" not in client.get("/").text
    client.post("/samples/cat")
    assert "1 photograph is waiting just now" in client.get("/").text
    client.post("/samples/cat")
    assert "2 photographs are waiting just now" in client.get("/").text


def test_it_names_the_formats_that_this_service_reads(client: FlaskClient) -> None:
    page = client.get("/").text
    assert "JPEG, PNG, WebP, GIF, AVIF or HEIC" in page
    assert "image/avif,image/heic,image/heif" in page


def test_each_reason_says_which_file_it_is_of(client: FlaskClient) -> None:
    parts = [part(bad_file("text"), "same.jpg"), part(b"", "same.jpg")]
    page = client.post("/", **form("images", parts)).text
    assert page.index('data-index="0"') < page.index('data-index="1"')
