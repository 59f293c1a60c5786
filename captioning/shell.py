"""What `captioning submit` and `captioning status` print."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click
from sqlalchemy.orm import Session

from captioning import queries
from captioning.errors import ImageRejected, NoImage
from captioning.models import Job, JobStatus
from captioning.queue import JobHandle, Queue


def submit(
    queue: Queue,
    photos: Sequence[str],
    *,
    wait: bool,
    timeout_s: float,
    jsonl: bool,
    **options: Any,
) -> bool:
    """Hand in photographs and print a line for each, in order; whether all went well.

    Raises: UnknownModel, InvalidOption, Unavailable.
    """
    well = True
    handed_in: list[tuple[str, JobHandle]] = []
    for photo in photos:
        try:
            handle = queue.submit(photo, **options)
        except (ImageRejected, NoImage) as error:
            well = False
            _complain(photo, str(error))
            if jsonl:
                _print_json(photo=photo, error=error.code)
            continue
        handed_in.append((photo, handle))
        if not wait:
            _print_json(photo=photo, job=handle.id) if jsonl else click.echo(handle.id)
    if wait:
        deadline = time.monotonic() + timeout_s
        for photo, handle in handed_in:
            handle.wait(max(deadline - time.monotonic(), 0))
            well &= _print_outcome(photo, handle.read(), jsonl=jsonl)
    return well


def _print_outcome(photo: str, job: Job, *, jsonl: bool) -> bool:
    texts = [caption.text for caption in job.captions]
    if job.status != JobStatus.SUCCEEDED:
        _complain(photo, job.error_message or f"still {job.status}, job {job.id}")
    if jsonl:
        _print_json(
            photo=photo, job=job.id, status=job.status, captions=texts, error=job.error_code
        )
    else:
        for text in texts:
            click.echo(f"{photo}\t{text}")
    return job.status == JobStatus.SUCCEEDED


def _print_json(**fields: Any) -> None:
    click.echo(json.dumps(fields, ensure_ascii=False))


def _complain(photo: str, reason: str) -> None:
    # An error of reading names the file already.
    click.echo(reason if reason.startswith(photo) else f"{photo}: {reason}", err=True)


def service_status(session: Session) -> Iterator[str]:
    """Jobs by status and the workers that are alive, as lines."""
    counts = queries.count_by_status(session)
    for status in JobStatus:
        yield f"{status:<10} {counts.get(status, 0):>8}"
    workers = queries.live_workers(session)
    yield f"workers    {len(workers):>8}"
    for worker in workers:
        yield f"  {worker.name}  {', '.join(worker.models)}"


def job_status(session: Session, job_id: str) -> Iterator[str]:
    """Raises: JobNotFound."""
    job = queries.get_job(session, job_id)
    yield f"{job.status}  {job.image.filename}  {job.model}, {job.decoding}"
    if job.error_message:
        yield f"{job.error_code}: {job.error_message}"
    yield from (caption.text for caption in job.captions)
