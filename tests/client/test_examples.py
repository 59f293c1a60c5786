"""The examples do what they say, each as the program that it is."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.service import free_port
from tests.factories import photo

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("worker")]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    script, *arguments = command
    return subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_plain_folder(url: str, tmp_path: Path) -> None:
    folder, table = tmp_path / "photos", tmp_path / "captions.csv"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(photo())
    (folder / "c.jpg").write_text("a text")
    done = run("folder.py", folder, table, CAPTIONING_URL=url)
    assert done.returncode == 0, done.stderr
    with table.open(newline="") as file:
        rows = {Path(row["photo"]).name: row for row in csv.DictReader(file)}
    assert rows["a.jpg"]["caption"] == "a photo of a.jpg"
    assert rows["b.jpg"]["caption"] == "a photo of b.jpg"
    assert "not an image" in rows["c.jpg"]["error"]


PAGE = """# Holiday

![](beach.jpg) and ![ours](beach.jpg) and ![](../cat.jpg "The cat")
![](https://elsewhere.example/far.jpg) ![](missing.jpg) `![](beach.jpg)`

```markdown
![](beach.jpg)
```
"""

FILLED = """# Holiday

![a photo of beach.jpg](beach.jpg) and ![ours](beach.jpg) and ![a photo of cat.jpg](../cat.jpg "The cat")
![](https://elsewhere.example/far.jpg) ![](missing.jpg) `![](beach.jpg)`

```markdown
![](beach.jpg)
```
"""  # noqa: E501


def test_a_site_of_markdown(url: str, tmp_path: Path) -> None:
    page = tmp_path / "posts" / "holiday.md"
    page.parent.mkdir()
    page.write_bytes(PAGE.replace("\n", "\r\n").encode())
    (page.parent / "beach.jpg").write_bytes(photo())
    (tmp_path / "cat.jpg").write_bytes(photo())
    done = run("markdown_site.py", tmp_path, CAPTIONING_URL=url)
    assert done.returncode == 0, done.stderr
    assert page.read_bytes() == FILLED.replace("\n", "\r\n").encode()
    nobody = f"http://127.0.0.1:{free_port()}"
    assert run("markdown_site.py", tmp_path, CAPTIONING_URL=nobody).returncode == 0
    assert page.read_text() == FILLED


UPLOAD = """
import sys, django
from django.core.files.uploadedfile import SimpleUploadedFile
django.setup()
from django.test import Client
photo = SimpleUploadedFile(sys.argv[1], sys.stdin.buffer.read(), "image/jpeg")
answer = Client(raise_request_exception=True).post("/", {"file": photo})
assert answer.status_code == 302, answer.content
"""

SHOW = """
import django
django.setup()
from django.test import Client
print(Client().get("/").content.decode())
"""


def test_a_django_album(url: str, tmp_path: Path) -> None:
    album = EXAMPLES / "django_album"
    environment = {
        "CAPTIONING_URL": url,
        "ALBUM_DATA": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "settings",
    }

    def python(code: str, *arguments: str, given: bytes = b"", **other: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=album,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{album}", **environment, **other},
            input=given,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def manage(*arguments: str) -> str:
        done = run("django_album/manage.py", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    manage("migrate")
    assert "No changes detected" in manage("makemigrations", "--check", "--dry-run")
    python(UPLOAD, "cat.jpg", given=photo())
    nobody = f"http://127.0.0.1:{free_port()}"
    python(UPLOAD, "dog.jpg", given=photo(), CAPTIONING_URL=nobody)
    assert python(SHOW).count("(no caption yet)") == 2
    assert manage("collect_captions") == "2 captions\n"
    shown = python(SHOW)
    assert "cat.jpg: a photo of cat.jpg" in shown
    assert "dog.jpg: a photo of dog.jpg" in shown
    assert manage("collect_captions") == "0 captions\n"
