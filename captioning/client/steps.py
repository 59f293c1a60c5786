"""What the clients do, written once: generators that say each step and are sent its result.

`Client` carries the steps out, `AsyncClient` awaits them; what goes wrong in a step is its
result, too. Nothing here waits or connects.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from captioning.client import errors
from captioning.client.answers import Batch, Job, Jobs, Outcome, Progress
from captioning.client.exchange import Found, Pause, Read, Send, Steps, exchange
from captioning.errors import CaptioningError, ImageRejected, NoImage
from captioning.models import JobStatus
from captioning.queue import AllRejected, Photo, Upload

API = "/api/v1"
LONG_POLL_S = 20
GROUP_PHOTOS, GROUP_BYTES = 20, 50_000_000
GROUPS_AHEAD = 2
"""Uploads that are sent before the outcomes of the first are waited for."""


Options = dict[str, Any]


def choices(model: str | None, decoding: str, num_captions: int, max_words: int | None) -> Options:
    return {
        "model": model,
        "decoding": decoding,
        "num_captions": num_captions,
        "max_words": max_words,
    }


def no_report(progress: Progress) -> None:
    """Tell nobody."""


def submit(photo: Photo, options: Options, retries: int) -> Steps[Job]:
    upload = yield from _read(photo)
    files = [("image", (upload.filename, upload.data))]
    response = yield from exchange(_post(f"{API}/jobs", files, options), retries)
    return Job.model_validate_json(response.content)


def read_job(job_id: str, retries: int, wait_s: float = 0) -> Steps[Job]:
    ask = Send("GET", f"{API}/jobs/{job_id}", {"params": {"wait": wait_s} if wait_s else {}})
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


def caption(photo: Photo, options: Options, timeout_s: float, retries: int) -> Steps[Job]:
    job = yield from submit(photo, options, retries)
    job = yield from wait(job.id, timeout_s, retries)
    if error := _error_of(job):
        raise error
    return job


def list_jobs(filters: Options, retries: int) -> Steps[None]:
    cursor = None
    while True:
        params = {name: value for name, value in filters.items() if value is not None}
        ask = Send(
            "GET", f"{API}/jobs", {"params": params | ({"cursor": cursor} if cursor else {})}
        )
        response = yield from exchange(ask, retries)
        page = Jobs.model_validate_json(response.content)
        for job in page.jobs:
            yield Found(job)
        cursor = page.next_cursor
        if cursor is None:
            return


def caption_many(
    photos: Sequence[Photo],
    options: Options,
    timeout_s: float,
    retries: int,
    on_progress: Callable[[Progress], None],
) -> Steps[None]:
    """Finds an Outcome for each photograph, in the order given."""
    sent = finished = 0
    groups: deque[list[Outcome]] = deque()

    def finish(group: list[Outcome]) -> Steps[None]:
        nonlocal finished
        for outcome in group:
            if outcome.job and not outcome.error:
                job = yield from wait(outcome.job.id, timeout_s, retries)
                outcome = Outcome(outcome.photo, job, _error_of(job))
            finished += 1
            on_progress(Progress(len(photos), sent, finished))
            yield Found(outcome)

    while sent < len(photos):
        group = yield from _send_group(photos[sent : sent + GROUP_PHOTOS], options, retries)
        sent += len(group)
        on_progress(Progress(len(photos), sent, finished))
        groups.append(group)
        if len(groups) > GROUPS_AHEAD:
            yield from finish(groups.popleft())
    for group in groups:
        yield from finish(group)


def _send_group(photos: Sequence[Photo], options: Options, retries: int) -> Steps[list[Outcome]]:
    """Send as many of the photographs as one request should hold."""
    outcomes: list[Outcome] = []
    uploads: list[Upload] = []
    places: list[int] = []
    for photo in photos:
        try:
            upload = yield from _read(photo)
        except (NoImage, ImageRejected) as error:
            outcomes.append(Outcome(photo, None, error))
            continue
        places.append(len(outcomes))
        outcomes.append(Outcome(photo, None, None))
        uploads.append(upload)
        if sum(len(upload.data) for upload in uploads) > GROUP_BYTES:
            break
    if uploads:
        found = yield from _send_batch(uploads, options, retries)
        for place, (job, refusal) in zip(places, found, strict=True):
            outcomes[place] = Outcome(outcomes[place].photo, job, refusal)
    return outcomes


def _send_batch(
    uploads: Sequence[Upload], options: Options, retries: int
) -> Steps[list[tuple[Job | None, CaptioningError | None]]]:
    files = [("images", (upload.filename, upload.data)) for upload in uploads]
    try:
        response = yield from exchange(_post(f"{API}/batches", files, options), retries)
    except AllRejected as error:
        return [(None, _refusal(item.code, item.message)) for item in error.rejected]
    batch = Batch.model_validate_json(response.content)
    refused = {item.index: _refusal(item.code, item.message) for item in batch.rejected}
    jobs = iter(batch.jobs)
    return [
        (None, refused[place]) if place in refused else (next(jobs), None)
        for place in range(len(uploads))
    ]


def _refusal(code: str, message: str) -> CaptioningError:
    return errors.of_code(code, message) or ImageRejected(message)


def _error_of(job: Job) -> CaptioningError | None:
    if not job.status.finished:
        return errors.TimedOut(job)
    return None if job.status == JobStatus.SUCCEEDED else errors.CaptioningFailed(job)


def _read(photo: Photo) -> Steps[Upload]:
    result: Upload | CaptioningError = yield Read(photo)
    if isinstance(result, CaptioningError):
        raise result
    return result


def _post(path: str, files: list[Any], options: Options) -> Send:
    data = {name: str(value) for name, value in options.items() if value is not None}
    # One key for all attempts: an upload whose answer was lost is not carried out twice.
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    return Send("POST", path, {"files": files, "data": data, "headers": headers})
