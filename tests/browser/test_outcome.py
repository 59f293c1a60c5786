"""Captions that appear as they land, on the pages that show them."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from captioning.queue import Queue
from tests.web.outcomes import caption, fail

pytestmark = pytest.mark.slow


def send(page: Page, site: str, photographs: list[Path], candidates: str = "1") -> None:
    page.goto(site)
    page.set_input_files("#images", photographs)
    if candidates != "1":
        page.get_by_text("Options").click()
        page.select_option("#num_captions", candidates)
    page.click("#send")
    page.wait_for_url("**/batches/*")


def test_captions_appear_one_by_one_and_polling_ends(
    page: Page, site: str, queue: Queue, photographs: list[Path]
) -> None:
    send(page, site, photographs)
    expect(page.get_by_text("0 of 3 done")).to_be_visible()
    first_card = page.locator(".card").first.element_handle()
    caption(queue, "a cat looks at you", limit=1)
    expect(page.locator(".card .caption")).to_have_text(["a cat looks at you"])
    expect(page.locator("#announcement")).to_contain_text("cat.jpg: a cat looks at you")
    last_card = page.locator(".card").last.element_handle()
    fail(queue, "The model gave up.")
    expect(page.get_by_text("2 of 3 done, 1 failed")).to_be_visible()
    expect(page.get_by_text("The model gave up.")).to_be_visible()
    # Only the cards that changed were replaced.
    assert not first_card.evaluate("card => card.isConnected")
    assert last_card.evaluate("card => card.isConnected")
    caption(queue, "a rocket")
    expect(page.get_by_text("All 3 done, 1 failed")).to_be_visible()
    assert polls_in(page, seconds=2.5) == 0


def polls_in(page: Page, seconds: float) -> int:
    seen: list[Request] = []
    page.on("request", lambda request: seen.append(request))
    page.wait_for_timeout(seconds * 1000)
    return sum("/progress" in request.url for request in seen)


def test_polling_goes_on_until_then(page: Page, site: str, photographs: list[Path]) -> None:
    send(page, site, photographs[:1])
    with page.expect_response("**/progress"):
        pass
    with page.expect_response("**/progress"):
        pass


def test_a_failed_job_is_tried_again_from_the_batch_page(
    page: Page, site: str, queue: Queue, photographs: list[Path]
) -> None:
    send(page, site, photographs[:2])
    fail(queue, "The model gave up.", limit=2)
    expect(page.get_by_text("All 2 done, 2 failed")).to_be_visible()
    page.get_by_role("button", name="Try again cat.jpg").click()
    expect(page.get_by_text("1 of 2 done, 1 failed")).to_be_visible()
    caption(queue, "a cat at last")
    expect(page.locator(".card .caption")).to_have_text(["a cat at last"])
    expect(page.get_by_text("All 2 done, 1 failed")).to_be_visible()


def test_the_job_page_follows_one_job_to_its_candidates(
    page: Page, site: str, queue: Queue, photographs: list[Path]
) -> None:
    send(page, site, photographs[:1], candidates="2")
    page.locator(".card a").click()
    page.wait_for_url("**/jobs/*")
    expect(page.get_by_role("heading", name="Waiting")).to_be_visible()
    caption(queue, "a cat looks at you", "a cat")
    expect(page.get_by_role("heading", name="a cat looks at you")).to_be_visible()
    expect(page.locator(".candidates li")).to_have_count(2)
    expect(page.get_by_text("61 %")).to_be_visible()


def test_a_waiting_job_tells_its_place_as_it_changes(
    page: Page, site: str, queue: Queue, photographs: list[Path]
) -> None:
    for path in photographs[:2]:
        queue.submit(path)
    send(page, site, photographs[2:])
    page.locator(".card a").click()
    expect(page.get_by_text("2 photographs before it")).to_be_visible()
    button = page.get_by_role("button", name="Cancel").element_handle()
    caption(queue, "a cat", limit=1)
    expect(page.get_by_text("1 photograph before it, a few seconds left")).to_be_visible()
    caption(queue, "a cup", limit=1)
    expect(page.get_by_text("Next in the queue")).to_be_visible()
    assert button.evaluate("button => button.isConnected")  # the rest was left alone
    caption(queue, "a rocket")
    expect(page.get_by_role("heading", name="a rocket")).to_be_visible()
    expect(page.locator("#place")).to_have_count(0)


def test_a_waiting_job_is_cancelled_and_tried_again(
    page: Page, site: str, photographs: list[Path]
) -> None:
    send(page, site, photographs[:1])
    page.locator(".card a").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Waiting")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_every_page_fits_and_follows_the_readers_theme(
    browser: Browser, site: str, queue: Queue, photographs: list[Path], scheme: str, width: int
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    send(page, site, photographs)
    caption(queue, "a caption of a length that has to be broken into several lines on a phone")
    batch = page.url
    job = page.locator(".card a").first.get_attribute("href")
    deleting = f"{batch.removeprefix(site)}/delete"
    for path in ("/", batch.removeprefix(site), str(job), "/gallery", deleting, "/nothing"):
        page.goto(site + path)
        width_needed = page.evaluate("document.documentElement.scrollWidth")
        assert width_needed <= width, f"{path} is {width_needed} wide"
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in ground[4:-1].split(","))
        assert (brightness > 600) == (scheme == "light"), f"{path} has the ground {ground}"
    context.close()
