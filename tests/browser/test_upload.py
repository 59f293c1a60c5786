"""Choosing, dropping, pasting, pruning and sending photographs in a real browser."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from flask import redirect
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import func, select
from werkzeug import Response

from captioning.models import Batch
from captioning.queue import Queue
from web.pages import upload

pytestmark = pytest.mark.slow

PROBLEM = '<div class="problem"><p class="lead">9 photographs are waiting already.</p></div>'
GIVE_FILES = """
([selector, event, files]) => {
  const transfer = new DataTransfer();
  for (const [name, data] of files) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  }
  const options = { bubbles: true, cancelable: true };
  const given = event === "paste"
    ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
    : new DragEvent(event, { ...options, dataTransfer: transfer });
  document.querySelector(selector).dispatchEvent(given);
}
"""


def give(page: Page, selector: str, event: str, paths: list[Path]) -> None:
    files = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths]
    page.evaluate(GIVE_FILES, [selector, event, files])


def test_chosen_files_are_previewed_pruned_and_sent(
    page: Page, site: str, photographs: list[Path]
) -> None:
    page.goto(site)
    page.set_input_files("#images", photographs)
    expect(page.locator("#files li")).to_have_count(3)
    expect(page.locator("#files img")).to_have_count(3)
    page.get_by_role("button", name="Remove coffee.jpg").click()
    expect(page.locator("#files li")).to_have_count(2)
    page.get_by_role("button", name="Caption 2").click()
    page.wait_for_url("**/batches/*")
    expect(page.get_by_role("heading", name="2 photographs")).to_be_visible()
    expect(page.locator(".filename")).to_have_text(["cat.jpg", "rocket.jpg"])


def test_files_can_be_chosen_in_several_goes(
    page: Page, site: str, photographs: list[Path]
) -> None:
    page.goto(site)
    page.set_input_files("#images", photographs[:1])
    page.set_input_files("#images", photographs[1:])
    expect(page.locator("#files li")).to_have_count(3)


def test_a_photograph_can_be_dropped(page: Page, site: str, photographs: list[Path]) -> None:
    page.goto(site)
    give(page, "body", "dragover", photographs[:1])
    expect(page.locator("#drop.over")).to_be_visible()
    give(page, "body", "drop", photographs[:2])
    expect(page.locator("#drop.over")).to_have_count(0)
    expect(page.locator("#files li")).to_have_count(2)
    page.click("#send")
    page.wait_for_url("**/batches/*")
    expect(page.locator(".card")).to_have_count(2)


def test_a_photograph_can_be_pasted(page: Page, site: str, photographs: list[Path]) -> None:
    page.goto(site)
    give(page, "body", "paste", photographs[:1])
    expect(page.locator("#files li")).to_have_count(1)
    page.click("#send")
    page.wait_for_url("**/batches/*")
    expect(page.locator(".card")).to_have_count(1)


def test_a_file_that_is_too_large_is_told_before_it_is_sent(
    page: Page, site: str, photographs: list[Path], tmp_path: Path
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(photographs[0].read_bytes() + bytes(3_000_000))
    empty = tmp_path / "empty.jpg"
    empty.touch()
    page.goto(site)
    page.set_input_files("#images", [*photographs[:1], large, empty])
    expect(page.locator("#files .refused")).to_have_count(2)
    expect(page.get_by_text("Too large: 2.0 MB at most.")).to_be_visible()
    expect(page.get_by_text("The file is empty.")).to_be_visible()
    expect(page.locator("#say")).to_contain_text("1 to send")
    page.click("#send")
    page.wait_for_url("**/batches/*")
    expect(page.locator(".card")).to_have_count(1)


def test_nothing_chosen_sends_nothing(page: Page, site: str) -> None:
    page.goto(site)
    page.click("#send")
    expect(page.get_by_text("Choose at least one photograph first.")).to_be_visible()
    assert page.url == f"{site}/"


def test_a_file_that_only_the_server_can_judge_comes_back_with_its_reason(
    page: Page, site: str, tmp_path: Path
) -> None:
    text = tmp_path / "holiday.jpg"
    text.write_text("no photograph at all")
    page.goto(site)
    page.set_input_files("#images", text)
    page.click("#send")
    expect(page.get_by_role("alert")).to_contain_text("None of the files is an image")
    refused = page.locator("#files .refused")
    expect(refused).to_contain_text("holiday.jpg")
    expect(refused).to_contain_text("not an image of type")
    expect(page.locator("#send")).to_be_enabled()


def test_greedy_search_offers_no_candidates(page: Page, site: str) -> None:
    page.goto(site)
    page.get_by_text("Options").click()
    page.get_by_label("Search").select_option("greedy")
    expect(page.get_by_label("Candidates")).to_be_disabled()
    page.get_by_label("Search").select_option("beam")
    expect(page.get_by_label("Candidates")).to_be_enabled()


def test_a_sample_is_one_click(page: Page, site: str) -> None:
    page.goto(site)
    page.get_by_role("button", name="A rocket").click()
    page.wait_for_url("**/batches/*")
    expect(page.locator(".filename")).to_have_text("rocket.jpg")


def test_coming_back_finds_the_form_usable(page: Page, site: str, photographs: list[Path]) -> None:
    page.goto(site)
    page.set_input_files("#images", photographs[:1])
    page.click("#send")
    page.wait_for_url("**/batches/*")
    page.go_back()
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("#send")).to_contain_text("Caption")


def test_it_works_without_javascript(browser: Browser, site: str, photographs: list[Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site)
    page.get_by_label("Photographs", exact=True).set_input_files(photographs)
    page.get_by_text("Options").click()
    page.get_by_label("Candidates").select_option("2")
    page.get_by_role("button", name="Caption", exact=True).click()
    page.wait_for_url("**/batches/*")
    expect(page.locator(".card")).to_have_count(3)
    context.close()


def test_an_address_alone_is_enough(page: Page, site: str) -> None:
    page.goto(site)
    page.get_by_role("button", name="Caption", exact=True).click()
    expect(page.locator("#say")).to_have_text("Choose at least one photograph first.")
    page.locator("#image_url").fill(f"{site}/samples/cat.jpg")
    page.get_by_role("button", name="Caption", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("leads to no public address")


def holiday(tmp_path: Path, photographs: list[Path]) -> Path:
    """A folder with three photographs, and with what else lies in folders."""
    folder = tmp_path / "holiday"
    (folder / "beach").mkdir(parents=True)
    for path, where in zip(photographs, (folder, folder, folder / "beach"), strict=True):
        (where / path.name).write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("We were there.")
    (folder / ".hidden.jpg").write_bytes(photographs[0].read_bytes())
    return folder


def test_a_folder_can_be_dropped(
    page: Page, site: str, photographs: list[Path], tmp_path: Path
) -> None:
    page.goto(site)
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(holiday(tmp_path, photographs))], "dragOperationsMask": 1}
    for event in ("dragEnter", "dragOver", "drop"):
        where = {"type": event, "x": 200, "y": 300, "data": data}
        devtools.send("Input.dispatchDragEvent", where)
    expect(page.locator("#files li")).to_have_count(3)
    expect(page.locator("#say")).to_contain_text("3 to send")
    expect(page.locator("#say")).to_contain_text("2 other files left alone")


def test_of_a_folder_the_images_are_taken(
    page: Page, site: str, photographs: list[Path], tmp_path: Path
) -> None:
    page.goto(site)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(holiday(tmp_path, photographs))
    expect(page.locator("#files li")).to_have_count(3)
    expect(page.locator("#say")).to_contain_text("left alone")
    page.get_by_role("button", name="Caption 3").click()
    page.wait_for_url("**/batches/*")
    expect(page.locator(".card")).to_have_count(3)


def test_each_file_shows_how_far_it_has_come_and_all_can_be_stopped(
    page: Page, site: str, photographs: list[Path]
) -> None:
    page.goto(site)
    page.set_input_files("#images", photographs)
    page.route(f"{site}/", lambda route: None)  # it is never answered
    page.click("#send")
    expect(page.locator("#files progress")).to_have_count(3)
    expect(page.locator("#files progress").first).to_be_visible()
    expect(page.locator("#send")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("alert")).to_contain_text("Stopped")
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("#files progress").first).to_be_hidden()
    page.unroute(f"{site}/")
    page.click("#send")
    page.wait_for_url("**/batches/*")


def test_what_has_all_been_sent_can_no_longer_be_stopped(
    page: Page, site: str, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = Event()

    def hold(*args: Any) -> Response:
        looked_at.wait(60)
        return redirect(*args)

    monkeypatch.setattr(upload, "redirect", hold)
    page.goto(site)
    page.set_input_files("#images", photographs)
    page.click("#send")
    expect(page.locator("#say")).to_contain_text("Sent.")
    expect(page.locator("#stop")).to_be_hidden()
    looked_at.set()
    page.wait_for_url("**/batches/*")


def test_files_go_one_after_the_other(page: Page, site: str) -> None:
    page.goto(site)
    shares = page.evaluate(
        """async () => {
          const { shares } = await import("/static/sending.js");
          return [0, 0.25, 0.5, 1].map((part) => shares([100, 200, 100], part));
        }"""
    )
    assert shares == [[0, 0, 0], [1, 0, 0], [1, 0.5, 0], [1, 1, 1]]


def test_a_connection_that_breaks_is_told(page: Page, site: str, photographs: list[Path]) -> None:
    page.goto(site)
    page.set_input_files("#images", photographs[:1])
    page.route(f"{site}/", lambda route: route.abort())
    page.click("#send")
    expect(page.get_by_role("alert")).to_contain_text("The connection broke")
    expect(page.locator("#files li")).to_have_count(1)


def test_a_service_that_is_full_says_so_and_keeps_the_choice(
    page: Page, site: str, photographs: list[Path]
) -> None:
    page.goto(site)
    page.set_input_files("#images", photographs[:1])
    page.route(f"{site}/", lambda route: route.fulfill(status=503, body=PROBLEM))
    page.click("#send")
    expect(page.get_by_role("alert")).to_have_text("9 photographs are waiting already.")
    expect(page.locator("#files li")).to_have_count(1)


LOSE_ANSWERS = """() => {
  const add = XMLHttpRequest.prototype.addEventListener;
  const lost = { load: "never", error: "load" };
  window.addAsBefore = add;
  XMLHttpRequest.prototype.addEventListener = function (type, told) {
    add.call(this, lost[type] ?? type, told);
  };
}"""
"""The service answers, and the page is told that the connection broke."""
LOSE_NO_MORE = "() => { XMLHttpRequest.prototype.addEventListener = window.addAsBefore; }"


def batches(queue: Queue) -> int:
    with queue.database.read() as session:
        return session.scalar(select(func.count()).select_from(Batch)) or 0


def test_what_is_sent_again_after_a_lost_answer_makes_one_batch(
    page: Page, site: str, photographs: list[Path], queue: Queue
) -> None:
    page.goto(site)
    page.set_input_files("#images", photographs[:1])
    page.evaluate(LOSE_ANSWERS)
    page.click("#send")
    expect(page.get_by_role("alert")).to_contain_text("The connection broke")
    page.evaluate(LOSE_NO_MORE)
    page.click("#send")
    page.wait_for_url("**/batches/*")
    assert batches(queue) == 1
    page.go_back()  # who sends them once more means to
    expect(page.locator("#send")).to_be_enabled()
    page.set_input_files("#images", photographs[:1])
    page.click("#send")
    page.wait_for_url("**/batches/*")
    assert batches(queue) == 2


def test_a_second_click_makes_no_second_batch_without_javascript(
    browser: Browser,
    site: str,
    photographs: list[Path],
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, clicked_again = Event(), Event()

    def hold_the_first(*args: Any) -> Response:
        if not made.is_set():
            made.set()
            clicked_again.wait(60)
        return redirect(*args)

    monkeypatch.setattr(upload, "redirect", hold_the_first)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site)
    page.get_by_label("Photographs", exact=True).set_input_files(photographs[:1])
    button = page.locator("#send").bounding_box()
    assert button
    where = button["x"] + 9, button["y"] + 9
    page.mouse.click(*where)  # which waits for no answer
    assert made.wait(60)
    page.mouse.click(*where)
    # Not wait_for_url, which fails when the first click's navigation ends for the second's.
    expect(page).to_have_url(re.compile("/batches/"))
    clicked_again.set()
    assert batches(queue) == 1
    context.close()
