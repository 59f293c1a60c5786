"""Pictures of the pages, in both sizes and themes, with what the bundled model says of the sample
photographs. `make pictures` keeps them in runs/pictures; docs/images holds some, without what is
usual in their names: desktop, light."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from captioning import access, editing, jobs
from captioning.jobs import CaptionText
from captioning.queue import Queue, Upload
from captioning.settings import Settings
from clipcap import Captioner
from tests.browser.conftest import PATIENCE_MS
from tests.browser.test_every_page import SIZES, sign_in
from tests.web.keys import make_key
from tests.web.outcomes import claim, start_worker
from web.samples import FOLDER, SAMPLES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MOST_BYTES = 100_000
QUALITY = 85
"""Of WebP: with it the photographs on the pages look as they do on a screen."""

SHOWN = """() => Promise.all(
  [...document.images]
    .filter((image) => image.getBoundingClientRect().top < innerHeight)
    .map((image) => image.decode())
)"""
"""Done when all images in the window are."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With keys, for the page on which people sign in, and the usual limit."""
    return settings.model_copy(update={"access": "keys", "max_image_bytes": 20_000_000})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(os.environ.get("PICTURES", tmp_path))


def hand_in(queue: Queue, key: str) -> tuple[str, str]:
    """The samples, captioned by the bundled model, one of them edited and one still to come;
    the ids of the batch and of a job with several candidates."""
    with queue.database.read() as session:
        anna = queue.seen_by(access.caller_of_key(session, key))
    uploads = [Upload(f"{name}.jpg", (FOLDER / f"{name}.jpg").read_bytes()) for name in SAMPLES]
    batch = anna.submit_many(uploads, anna.options(None, "beam", 3))
    held = claim(queue, len(uploads) - 1)
    with Captioner.load("bundled") as captioner:
        stored = [queue.storage.get(job.image_key) for job in held.jobs]  # what a worker reads
        photographs = [Image.open(io.BytesIO(data)) for data in stored]
        found = captioner.caption(photographs, captioner.defaults.override(num_captions=3))
        revision = captioner.revision
    texts = {
        job.id: [CaptionText(each.text, each.mean_log_probability) for each in candidates]
        for job, candidates in zip(held.jobs, found, strict=True)
    }
    with queue.database.write() as session:
        jobs.succeed(session, held.token, texts, model_revision=revision)
        editing.edit(session, batch.job_ids[0], "Our cat, who has heard the fridge.")
    start_worker(queue)  # the model may have taken longer than a worker may be silent
    return batch.batch_id, batch.job_ids[0]


def keep(page: Page, path: Path) -> None:
    """What the window shows, small enough for a repository. Nothing is wider than it."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate(SHOWN)
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shown.save(path, "WEBP", quality=QUALITY, method=6)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_have_their_picture_taken(
    browser: Browser, site: str, queue: Queue, folder: Path, size: str, scheme: str
) -> None:
    key = make_key(queue, "anna")
    batch_id, job_id = hand_in(queue, key)
    context = browser.new_context(
        viewport=SIZES[size],  # type: ignore[arg-type]
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    folder.mkdir(parents=True, exist_ok=True)
    page.goto(f"{site}/sign-in")
    keep(page, folder / f"sign-in-{size}-{scheme}.webp")
    sign_in(page, site, key)
    paths = {"upload": "/", "batch": f"/batches/{batch_id}", "job": f"/jobs/{job_id}"}
    for name, path in {**paths, "gallery": "/gallery"}.items():
        page.goto(site + path, wait_until="load")
        keep(page, folder / f"{name}-{size}-{scheme}.webp")
    context.close()
    taken = list(folder.glob(f"*-{size}-{scheme}.webp"))
    assert len(taken) == 5
    assert all(3_000 < path.stat().st_size <= MOST_BYTES for path in taken)


def test_the_documents_show_the_pictures_that_are_there_and_no_others() -> None:
    shown = {
        document.parent / name
        for document in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
        for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", document.read_text())
    }
    kept = set((ROOT / "docs" / "images").iterdir())
    assert shown == kept
    assert all(3_000 < path.stat().st_size <= MOST_BYTES for path in kept)
