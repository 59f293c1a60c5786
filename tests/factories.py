"""Makes what tests need: photographs, and rows in the state that a test is about."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image as PILImage
from sqlalchemy.orm import Session

from captioning.database import Database, db_now
from captioning.models import Decoding, Image, Job, JobStatus, new_id

MODEL = "bundled"


def photo(
    size: tuple[int, int] = (64, 48),
    *,
    mode: str = "RGB",
    colour: Any = "teal",
    format: str = "JPEG",
    **options: Any,
) -> bytes:
    """The bytes of a plain image file."""
    return encoded(PILImage.new(mode, size, colour), format, **options)


def encoded(image: PILImage.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def add_image(session: Session, **columns: Any) -> Image:
    """A stored image; `stored_at=None` makes it a pending one."""
    defaults = {
        "filename": "photo.jpg",
        "sha256": 2 * new_id(),  # no other's
        "width": 64,
        "height": 48,
        "stored_at": db_now(),
    }
    image = Image(**{**defaults, **columns})
    session.add(image)
    session.flush()
    return image


def add_job(session: Session, status: JobStatus = JobStatus.QUEUED, **columns: Any) -> str:
    """A job in any state, and its image. A running one is held under a fresh token."""
    running = status == JobStatus.RUNNING
    defaults = {
        "id": new_id(),
        "image_id": columns.get("image_id") or add_image(session).id,
        "model": MODEL,
        "decoding": Decoding.BEAM,
        "num_captions": 1,
        "status": status,
        "max_attempts": 3,
        "attempts": 1 if running else 0,
        "lease_token": new_id() if running else None,
        "lease_expires_at": db_now(60) if running else None,
        "finished_at": db_now() if status.finished else None,
    }
    job = Job(**{**defaults, **columns})
    session.add(job)
    session.flush()
    return job.id


def add_jobs(database: Database, count: int, **columns: Any) -> list[str]:
    """Jobs committed in one transaction, oldest first."""
    with database.write() as session:
        return [add_job(session, **columns) for _ in range(count)]


def read_job(database: Database, job_id: str) -> Job:
    """The row as it is committed now."""
    with database.read() as session:
        job = session.get(Job, job_id)
        assert job is not None
        return job
