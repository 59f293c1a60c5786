"""A photograph goes in, a caption comes out: over HTTP, in a browser, from the shell, in Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.acceptance.service import WAIT_S, Service
from tests.factories import photo
from web import samples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SAMPLE_FILES = sorted(Path(samples.FOLDER).glob("*.jpg"))
COLOURS = "red|green|blue|white|black|yellow|cyan|magenta"


def is_caption(text: str) -> bool:
    return re.search(COLOURS, text) is not None


def test_one_photograph_over_http(service: Service) -> None:
    with SAMPLE_FILES[0].open("rb") as file:
        answer = service.http.post("/api/v1/jobs", files={"image": file})
    assert answer.status_code == 202
    job = service.http.get(answer.headers["Location"], params={"wait": 20}).json()
    assert job["status"] == "succeeded"
    assert is_caption(job["captions"][0]["text"])


def test_all_samples_in_one_batch(service: Service, photographs: dict[str, bytes]) -> None:
    for job_id in service.upload(photographs, num_captions="2"):
        job = service.http.get(f"/api/v1/jobs/{job_id}", params={"wait": 20}).json()
        assert job["status"] == "succeeded"
        assert len(job["captions"]) == 2


def test_the_model_sees_the_photograph(service: Service) -> None:
    (job_id,) = service.upload({"red.png": photo(colour="red", format="PNG")})
    job = service.http.get(f"/api/v1/jobs/{job_id}", params={"wait": 20}).json()
    assert "red" in job["captions"][0]["text"]


def test_from_the_shell(service: Service) -> None:
    result = service.run_command("submit", *SAMPLE_FILES, "--wait", "--timeout", "100")
    assert result.returncode == 0, result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [path for path, _ in lines] == [str(path) for path in SAMPLE_FILES]
    assert all(is_caption(caption) for _, caption in lines)


def test_from_the_shell_as_json_lines(service: Service) -> None:
    options = ("--wait", "--timeout", "100", "--jsonl", "--decoding", "greedy")
    result = service.run_command("submit", SAMPLE_FILES[0], "/no/such.jpg", *options)
    assert result.returncode == 1
    assert result.stderr == "/no/such.jpg: No such file or directory\n"
    refused, captioned = sorted(map(json.loads, result.stdout.splitlines()), key=len)
    assert refused == {"photo": "/no/such.jpg", "error": "no_image"}
    assert captioned["status"] == "succeeded"
    assert is_caption(captioned["captions"][0])


def test_from_python(service: Service) -> None:
    code = (
        "import sys; from captioning import connect\n"
        "job = connect().submit(sys.argv[1]); job.wait(timeout_s=60); print(*job.captions)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(SAMPLE_FILES[0])],
        env=service.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert is_caption(result.stdout)


def test_the_shell_sees_the_worker(service: Service) -> None:
    result = service.run_command("status")
    assert re.search(r"workers +1\n +\d+@.*  tiny", result.stdout)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert chromium, "run `make test`, which brings a browser, or set CHROMIUM"
    with sync_playwright() as playwright:
        # Chromium refuses to make its sandbox as root.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_in_a_browser(service: Service, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(service.url)
    page.get_by_label("Photographs", exact=True).set_input_files(SAMPLE_FILES)
    page.get_by_role("button", name=f"Caption {len(SAMPLE_FILES)}").click()
    expect(page.get_by_text(f"All {len(SAMPLE_FILES)} done")).to_be_visible(timeout=WAIT_S * 1000)
    captions = page.locator("#cards .caption")
    expect(captions).to_have_count(len(SAMPLE_FILES))
    assert all(is_caption(text) for text in captions.all_inner_texts())
    page.close()
