"""Captions fixed in place and copied, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from captioning.queue import Queue
from tests.browser.test_outcome import send
from tests.web.outcomes import caption

pytestmark = pytest.mark.slow


def test_a_caption_is_edited_in_place(
    page: Page, site: str, queue: Queue, photographs: list[Path]
) -> None:
    send(page, site, photographs[:2])
    caption(queue, "a cat looks at you", limit=1)
    card = page.locator(".card").first
    expect(card.locator(".caption")).to_have_text("a cat looks at you")
    waiting = page.locator(".card").last.element_handle()
    card.get_by_text("Edit").click()
    card.get_by_label("Caption").fill("Mia looks at you")
    card.get_by_label("Decorative").check()
    with page.expect_response("**/edit"):
        card.get_by_role("button", name="Save").click()
    expect(card.locator(".caption")).to_have_text("Mia looks at you")
    expect(card).to_contain_text("The model said: a cat looks at you")
    expect(card).to_contain_text("its alt is empty")
    expect(card.locator("summary")).to_be_focused()
    expect(page.locator("#announcement")).to_contain_text("Saved for cat.jpg")
    assert waiting.evaluate("card => card.isConnected")  # nothing else was loaded again
    page.reload()
    expect(card.locator(".caption")).to_have_text("Mia looks at you")


def test_a_refused_edit_says_why(
    context: BrowserContext, site: str, queue: Queue, photographs: list[Path]
) -> None:
    page = context.new_page()  # on which htmx may log that it was refused
    send(page, site, photographs[:1])
    (job_id,) = caption(queue, "a cat")
    page.reload()
    queue.delete([job_id])
    page.locator(".card").get_by_text("Edit").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="There is no such job")).to_be_visible()


def test_captions_are_copied_one_all_and_as_html(
    page: Page, context: BrowserContext, site: str, queue: Queue, photographs: list[Path]
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    send(page, site, photographs[:2])
    caption(queue, 'a "cat"', limit=1)
    caption(queue, "a cup")
    expect(page.get_by_text("All 2 done")).to_be_visible()

    def copied(name: str) -> str:
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.locator("#announcement")).to_have_text("Copied")
        text: str = page.evaluate("navigator.clipboard.readText()")
        return text

    assert copied("Copy of cat.jpg") == 'a "cat"'
    assert copied("Copy alt of cat.jpg") == 'alt="a &quot;cat&quot;"'
    assert copied("Copy all") == 'a "cat"\na cup'
    assert copied("Copy all as HTML").splitlines() == [
        '<img src="cat.jpg" alt="a &quot;cat&quot;">',
        '<img src="coffee.jpg" alt="a cup">',
    ]


def test_a_caption_arrives_and_is_edited_without_javascript(
    browser: Browser, site: str, queue: Queue, photographs: list[Path]
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site)
    page.set_input_files("#images", photographs[:1])
    page.click("#send")
    expect(page.get_by_text("0 of 1 done")).to_be_visible()
    caption(queue, "a cat")
    expect(page.locator(".card .caption")).to_have_text("a cat")
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)
    page.locator(".card").get_by_text("Edit").click()
    page.get_by_label("Caption").fill("our cat")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".card .caption")).to_have_text("our cat")
    context.close()
