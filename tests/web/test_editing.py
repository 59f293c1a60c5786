"""Captions are edited on the pages that show them, with and without htmx."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from captioning.queue import Queue
from tests.web.outcomes import caption, fail
from tests.web.sending import photos

HTMX = {"HX-Request": "true"}


@pytest.fixture
def batch(client: FlaskClient) -> str:
    """The address of a batch of one."""
    return str(client.post("/", data={"images": photos(1)}).location)


@pytest.fixture
def job(client: FlaskClient, queue: Queue, batch: str) -> str:
    """The address of its job, which is captioned."""
    return f"/jobs/{caption(queue, 'a wall')[0]}"


def test_an_edit_is_shown_with_what_the_model_said(
    client: FlaskClient, batch: str, job: str
) -> None:
    answer = client.post(f"{job}/edit", data={"caption": "our <wall>", "from": "batch"})
    assert (answer.status_code, answer.location) == (303, f"{batch}#{job[1:].replace('s/', '-')}")
    for page in (batch, job, "/gallery"):
        text = client.get(page).text
        assert "our &lt;wall&gt;" in text
        assert "The model said: a wall" in text


def test_htmx_gets_the_card_that_the_form_is_on(client: FlaskClient, job: str) -> None:
    sent = {"caption": "our wall", "from": "batch"}
    text = client.post(f"{job}/edit", data=sent, headers=HTMX).text
    assert text.lstrip().startswith('<li class="card')
    assert "our wall" in text
    assert 'id="announcement" hx-swap-oob' in text
    assert "<html" not in text


def test_htmx_gets_the_words_of_the_job_page(client: FlaskClient, job: str) -> None:
    text = client.post(f"{job}/edit", data={"caption": "our wall"}, headers=HTMX).text
    assert '<div id="outcome"' in text
    assert '<h1 class="caption">our wall</h1>' in text
    assert "<p>a wall</p>" in text  # with its score


@pytest.mark.parametrize("text", ["", " ", "a wall"])
def test_nothing_and_the_models_own_text_are_no_edit(
    client: FlaskClient, job: str, text: str
) -> None:
    client.post(f"{job}/edit", data={"caption": "our wall"})
    client.post(f"{job}/edit", data={"caption": text})
    page = client.get(job).text
    assert '<h1 class="caption">a wall</h1>' in page
    assert "Edited" not in page


def test_decorative_is_a_tick_that_can_be_taken_back(client: FlaskClient, job: str) -> None:
    client.post(f"{job}/edit", data={"caption": "a wall", "decorative": "yes"})
    page = client.get(job).text
    assert "its alt is empty" in page
    assert 'data-alt="alt=&#34;&#34;"' in page
    client.post(f"{job}/edit", data={"caption": "a wall"})
    assert "its alt is empty" not in client.get(job).text


def test_what_failed_can_be_captioned_by_hand(
    client: FlaskClient, queue: Queue, batch: str
) -> None:
    (job_id,) = fail(queue, "No.")
    client.post(f"/jobs/{job_id}/edit", data={"caption": "our wall"})
    page = client.get(batch).text
    assert "our wall" in page
    assert "Failed" in page


def test_a_text_that_is_too_long_is_refused(client: FlaskClient, job: str) -> None:
    answer = client.post(f"{job}/edit", data={"caption": "x" * 2001})
    assert answer.status_code == 422
    assert "2000 characters" in answer.text


def test_an_unknown_job_is_not_edited(client: FlaskClient) -> None:
    assert client.post(f"/jobs/{'0' * 32}/edit", data={"caption": "a"}).status_code == 404


def test_another_site_edits_and_deletes_nothing(client: FlaskClient, job: str) -> None:
    for verb in ("edit", "delete"):
        answer = client.post(f"{job}/{verb}", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403
    assert client.get(job).status_code == 200
