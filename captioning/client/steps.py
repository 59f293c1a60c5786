"""What the clients do, written once: generators that say each step and are sent its result.

`Client` carries the steps out, `AsyncClient` awaits them; what goes wrong in a step is its
result, too. Nothing here waits or connects.
"""

from __future__ import annotations

import time
import uuid
from datetime import datetime
from typing import Any
from urllib.parse import quote

from captioning.client import errors
from captioning.client.answers import Job, Jobs
from captioning.client.exchange import Found, Pause, Read, Send, Steps, exchange
from captioning.errors import CaptioningError
from captioning.models import JobStatus
from captioning.queue import Photo, Upload

API = "/api/v1"
LONG_POLL_S = 20
PAGE = 100
"""Jobs that a listing asks for at once: the most that it gets."""

Options = dict[str, Any]


def choices(model: str | None, decoding: str, num_captions: int, max_words: int | None) -> Options:
    return {
        "model": model,
        "decoding": decoding,
        "num_captions": num_captions,
        "max_words": max_words,
    }


def job_path(job_id: str) -> str:
    return f"{API}/jobs/{quote(job_id, safe='')}"


def submit(photo: Photo | None, options: Options, retries: int) -> Steps[Job]:
    """A photograph, or where the options have its address, none."""
    files = []
    if photo is not None:
        upload = yield from read(photo)
        files.append(("image", (upload.filename, upload.data)))
    response = yield from exchange(post(f"{API}/jobs", files, options), retries)
    return Job.model_validate_json(response.content)


def read_job(job_id: str, retries: int, wait_s: float = 0) -> Steps[Job]:
    ask = Send("GET", job_path(job_id), {"params": {"wait": wait_s} if wait_s else {}}, wait_s)
    response = yield from exchange(ask, retries)
    return Job.model_validate_json(response.content)


def wait(job_id: str, timeout_s: float, retries: int) -> Steps[Job]:
    deadline = time.monotonic() + timeout_s
    while True:
        asked_at = time.monotonic()
        wait_s = min(max(deadline - asked_at, 0), LONG_POLL_S)
        job = yield from read_job(job_id, retries, wait_s)
        if job.status.finished or time.monotonic() >= deadline:
            return job
        if time.monotonic() - asked_at < wait_s / 2:  # too many wait there already
            yield Pause(min(1, max(deadline - time.monotonic(), 0)))


def caption(photo: Photo | None, options: Options, timeout_s: float, retries: int) -> Steps[Job]:
    job = yield from submit(photo, options, retries)
    job = yield from wait(job.id, timeout_s, retries)
    if error := error_of(job):
        raise error
    return job


def list_jobs(filters: Options, retries: int) -> Steps[None]:
    params: Options = {"limit": PAGE} | {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in filters.items()
        if value is not None
    }
    while True:
        response = yield from exchange(Send("GET", f"{API}/jobs", {"params": params}), retries)
        page = Jobs.model_validate_json(response.content)
        for job in page.jobs:
            yield Found(job)
        if page.next_cursor is None:
            return
        params = params | {"cursor": page.next_cursor}


def error_of(job: Job) -> CaptioningError | None:
    if not job.status.finished:
        return errors.TimedOut(job)
    return None if job.status == JobStatus.SUCCEEDED else errors.CaptioningFailed(job)


def read(photo: Photo) -> Steps[Upload]:
    result: Upload | CaptioningError = yield Read(photo)
    if isinstance(result, CaptioningError):
        raise result
    return result


def post(path: str, files: list[Any], options: Options) -> Send:
    data = {name: str(value) for name, value in options.items() if value is not None}
    # One key for all attempts: an upload whose answer was lost is not carried out twice.
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    return Send("POST", path, {"files": files, "data": data, "headers": headers})
