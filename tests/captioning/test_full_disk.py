"""A disk that is full in the middle of an upload. No file may grow beyond a limit
(RLIMIT_FSIZE), in a process of its own: the errors are the system's, no rights are needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from captioning.database import db_now
from captioning.models import Image, Job
from captioning.queue import Queue
from captioning.settings import Settings
from captioning.sweeper import sweep

pytestmark = pytest.mark.slow

UPLOADER = """
import io, resource, sys
from PIL import Image
from captioning.errors import CaptioningError
from captioning.jobs import JobOptions
from captioning.queue import Queue, Upload
from captioning.settings import load_settings

limit = int(sys.argv[1])
photo = io.BytesIO()
Image.effect_noise((700, 700), 100).save(photo, "JPEG")
queue = Queue(load_settings())
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    uploads = [Upload(f"{i}.jpg", photo.getvalue()) for i in range(3)]
    queue.submit_many(uploads, JobOptions("bundled"))
    print("accepted")
except CaptioningError as error:
    print(error.code)
"""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        (1_000, "database_unavailable"),  # no row can be written
        (40_000, "storage_unavailable"),
        (200_000, "storage_unavailable"),  # a part of an image can be written
        (10_000_000, "accepted"),
    ],
)
def test_a_full_disk_refuses_the_upload_and_leaves_nothing_half_written(
    settings: Settings, limit: int, outcome: str
) -> None:
    queue = Queue(settings)
    assert upload_within(limit, settings) == outcome

    with queue.database.write() as session:
        session.execute(
            update(Image).where(Image.stored_at.is_(None)).values(created_at=db_now(-1e6))
        )
    sweep(queue)
    expected = 3 if outcome == "accepted" else 0
    with queue.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == expected
        assert session.scalar(select(func.count()).select_from(Image)) == expected
    assert len(files(settings)) == 2 * expected

    assert upload_within(10_000_000, settings) == "accepted"
    queue.close()


def upload_within(limit: int, settings: Settings) -> str:
    """Upload three photographs from a process whose files may hold `limit` bytes each."""
    own = {f"CAPTIONING_{name.upper()}": str(getattr(settings, name)) for name in SET}
    done = subprocess.run(
        [sys.executable, "-c", UPLOADER, str(limit)],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


SET = ("data_dir", "database_url", "broker_url", "storage_url")


def files(settings: Settings) -> list[Path]:
    folder = settings.data_dir / "storage"
    return [path for path in folder.rglob("*") if path.is_file()]
