"""A real Chromium on a real server. Captions are made by the test, so no model is needed."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright
from werkzeug.serving import make_server
from werkzeug.wsgi import ClosingIterator

from captioning.queue import Queue
from captioning.settings import Settings
from tests import servers
from tests.web.outcomes import start_worker
from web import create_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CHROMIUM_OPTIONS = [
    "--no-sandbox",  # tests may run as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000
"""Other tests may keep the machine busy."""
SHARED_CHROMIUM = Path(".cache/browser/chromium")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """$CHROMIUM, which `make test` sets, or one that is installed."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not found and SHARED_CHROMIUM.exists():
        found = str(SHARED_CHROMIUM.resolve())
    if not found:
        pytest.fail("There is no Chromium: run scripts/chromium.sh, or set CHROMIUM to one.")
    return found


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    """No longer than this folder's tests: while it is open no other test can run asyncio."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: Playwright, chromium_path: str) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium_path, args=CHROMIUM_OPTIONS)
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page on which any error of script, or anything that the policy forbids, fails the test."""
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if _is_fault(message) else None)
    yield page
    assert errors == []


def _is_fault(message: object) -> bool:
    text = getattr(message, "text", "")
    # An answer of 4xx is logged as an error too, and is what some tests are about.
    return getattr(message, "type", "") == "error" and "Failed to load resource" not in text


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with servers.migrated_database("sqlite", tmp_path) as url:
        yield Settings(data_dir=tmp_path, database_url=url, max_image_bytes=2_000_000)


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    """The test's own connection, with which it does what a worker would."""
    queue = Queue(settings)
    start_worker(queue)
    yield queue
    queue.close()


def _read_whole(app: WSGIApplication) -> WSGIApplication:
    """Werkzeug's server leaves a file open where the browser has gone before it is sent."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with closing(ClosingIterator(app(environ, start_response))) as body:
            return [b"".join(body)]

    return answer


@pytest.fixture
def site(settings: Settings, queue: Queue) -> Iterator[str]:
    """The address of the running site."""
    app = create_app(settings)
    server = make_server("127.0.0.1", 0, _read_whole(app), threaded=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()
    app.extensions["captioning"].close()


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """Three good files."""
    folder = Path(__file__).parents[2] / "web" / "samples"
    return [folder / f"{name}.jpg" for name in ("cat", "coffee", "rocket")]
