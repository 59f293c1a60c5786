"""Every page, found by its route, in both sizes and themes: axe-core finds nothing to mend, and
script and style are light."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiflask import APIFlask
from playwright.sync_api import Browser, Page, Response

from captioning import access
from captioning.queue import Queue, Upload
from captioning.settings import Settings
from tests.factories import photo
from tests.web.keys import make_key
from tests.web.outcomes import caption, fail
from web import create_app

pytestmark = pytest.mark.slow

AXE = (Path(__file__).parent / "vendor" / "axe-4.14.1.min.js").read_text()
# The rule of WCAG 2.2 is not among those that run by themselves.
RUN = "axe.run({ resultTypes: ['violations'], rules: { 'target-size': { enabled: true } } })"
MOST_BYTES = 60_000
SIZES = {"phone": {"width": 360, "height": 740}, "desktop": {"width": 1280, "height": 900}}
EXTRA = [
    "/nothing",
    "/gallery?show=failed",
    "/gallery?show=all",
    "/jobs/{failed}",
    "/jobs/{waiting}",
]
"""States of pages that their routes alone do not lead to."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With keys, so that each page has all that it can have."""
    return settings.model_copy(update={"access": "keys"})


@pytest.fixture
def key(queue: Queue) -> str:
    return make_key(queue, "anna")


@pytest.fixture
def named(queue: Queue, key: str) -> dict[str, str]:
    """What is in the paths of pages: a batch with every kind of outcome, and its jobs."""
    with queue.database.read() as session:
        anna = queue.seen_by(access.caller_of_key(session, key))
    uploads = [Upload(f"{i}.jpg", photo((400, 300), colour=(90, 60 * i, 120))) for i in range(3)]
    batch = anna.submit_many([*uploads, Upload("notes.txt", b"x")], anna.options(None, "beam", 3))
    caption(queue, "a plain wall in one colour", "a wall", limit=1)
    fail(queue, "The model gave up.")
    done, failed, waiting = batch.job_ids
    ids = {"batch_id": batch.batch_id, "job_id": done, "failed": failed, "waiting": waiting}
    return ids | {"name": "cat"}


def paths(app: APIFlask, named: dict[str, str]) -> Iterator[str]:
    """Of every GET of the pages' blueprint. One with a parameter of a new name fails here."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("pages.") and "GET" in (rule.methods or ()):
            with app.test_request_context():
                yield app.url_for(rule.endpoint, **{name: named[name] for name in rule.arguments})
    yield from (path.format(**named) for path in EXTRA)


@pytest.fixture
def pages(settings: Settings, named: dict[str, str]) -> list[str]:
    app = create_app(settings)
    found = list(paths(app, named))
    app.extensions["captioning"].close()
    assert len(found) > 8
    return found


def sign_in(page: Page, site: str, key: str) -> None:
    page.goto(f"{site}/sign-in")
    page.get_by_label("Access key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{site}/")


def is_page(answer: Response | None) -> bool:
    """Rather than a fragment of one, or a file."""
    assert answer is not None
    html = answer.headers["content-type"].startswith("text/html")
    return html and answer.text().lstrip().startswith("<!doctype")


def faults(page: Page) -> list[str]:
    page.evaluate(AXE)
    found: dict[str, Any] = page.evaluate(RUN)
    assert found["passes"]
    return [
        f"{fault['id']}: {fault['help']}: {[node['html'] for node in fault['nodes']]}"
        for fault in found["violations"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing(
    browser: Browser, site: str, pages: list[str], key: str, size: str, scheme: str, tmp_path: Path
) -> None:
    context = browser.new_context(
        viewport=SIZES[size],  # type: ignore[arg-type]
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",  # what moves has no one colour
    )
    page = context.new_page()
    found: dict[str, list[str]] = {}
    page.goto(f"{site}/sign-in")
    page.get_by_label("Access key").fill("cap_wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    found["a wrong key"] = faults(page)
    sign_in(page, site, key)
    for path in pages:
        if "." not in path.rpartition("/")[2] and is_page(page.goto(site + path)):
            found[path] = faults(page)
    found["files chosen"] = _with_files(page, site, tmp_path)
    page.locator("#send").click()
    page.get_by_role("alert").wait_for()
    found["files refused"] = faults(page)
    context.close()
    assert len(found) > 8
    assert {path: each for path, each in found.items() if each} == {}


def _with_files(page: Page, site: str, folder: Path) -> list[str]:
    page.goto(site)
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no photograph")
    page.set_input_files("#images", [folder / "empty.jpg", folder / "text.jpg"])
    page.get_by_text("Options").click()
    return faults(page)


def test_script_and_style_of_no_page_weigh_much(
    browser: Browser, site: str, pages: list[str], key: str
) -> None:
    weights: dict[str, int] = {}
    first = browser.new_context()
    sign_in(first.new_page(), site, key)
    for path in pages:
        if "." in path.rpartition("/")[2]:
            continue
        context = browser.new_context(storage_state=first.storage_state())  # and no cache
        page = context.new_page()
        answers: list[Response] = []
        page.on("response", lambda answer, kept=answers: kept.append(answer))  # type: ignore[misc]
        if is_page(page.goto(site + path, wait_until="networkidle")):
            kinds = [a for a in answers if a.request.resource_type in ("script", "stylesheet")]
            weights[path] = sum(a.request.sizes()["responseBodySize"] for a in kinds)
        context.close()
    first.close()
    assert len(weights) > 8
    assert min(weights.values()) > 1000
    assert max(weights.values()) <= MOST_BYTES
