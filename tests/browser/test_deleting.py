"""Photographs taken away in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from captioning.queue import Queue
from tests.browser.test_outcome import send
from tests.web.outcomes import caption

pytestmark = pytest.mark.slow


def test_one_and_then_all_of_a_batch_are_deleted_after_a_question(
    page: Page, site: str, queue: Queue, photographs: list[Path]
) -> None:
    send(page, site, photographs)
    caption(queue, "a photograph")
    page.get_by_role("link", name="Delete cat.jpg").click()
    expect(page.get_by_role("heading", name="Delete cat.jpg?")).to_be_visible()
    page.get_by_role("link", name="Keep").click()
    page.go_back()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".filename")).to_have_text(["coffee.jpg", "rocket.jpg"])
    page.get_by_role("link", name="Delete these photographs").click()
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/gallery")
    expect(page.get_by_text("Nothing here yet")).to_be_visible()


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_some_are_found_ticked_and_deleted_and_then_all_that_match(
    browser: Browser, site: str, queue: Queue, photographs: list[Path], script: bool
) -> None:
    context = browser.new_context(java_script_enabled=script)
    page = context.new_page()
    for path in photographs:
        queue.submit(path)
    caption(queue, "a cat", limit=1)
    caption(queue, "a cup", limit=1)
    caption(queue, "a rocket")
    page.goto(f"{site}/gallery")
    page.get_by_label("Select cat.jpg").check()
    page.get_by_role("button", name="Delete selected").click()
    expect(page.get_by_role("heading", name="Delete cat.jpg?")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".filename")).to_have_text(["rocket.jpg", "coffee.jpg"])
    page.get_by_label("Words of the caption").fill("cup")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".filename")).to_have_text(["coffee.jpg"])
    page.get_by_role("button", name="Delete all that match").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_role("link", name="Clear").click()
    expect(page.locator(".filename")).to_have_text(["rocket.jpg"])
    context.close()
