"""Many photographs, in as many uploads as they need. A bad one spoils no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from captioning.client import errors
from captioning.client.answers import Batch, Job, Outcome, Progress
from captioning.client.exchange import Found, Steps, exchange
from captioning.client.steps import API, Options, error_of, post, read, wait
from captioning.errors import CaptioningError, ImageRejected, NoImage, TooManyImages
from captioning.queue import AllRejected, Photo, Upload

GROUP_PHOTOS = 20
"""Of one upload whose outcomes are waited for: the first come soon."""
BATCH_PHOTOS = 100
"""Of one upload that is only handed in. As many as services take where nobody says otherwise."""
GROUP_BYTES = 50_000_000
GROUPS_AHEAD = 2
"""Uploads that are sent before the outcomes of the first are waited for."""

Report = Callable[[Progress], None]
Sent = tuple[Job | None, CaptioningError | None]


def no_report(progress: Progress) -> None:
    """Tell nobody."""


def submit_many(
    photos: Sequence[Photo], options: Options, retries: int, on_progress: Report
) -> Steps[None]:
    """Finds an Outcome for each photograph, in the order given, as it is handed in."""
    sent = refused = 0
    while sent < len(photos):
        group, error = yield from _send_group(photos[sent : sent + BATCH_PHOTOS], options, retries)
        sent += len(group)
        refused += sum(outcome.error is not None for outcome in group)
        on_progress(Progress(len(photos), sent, refused))
        for outcome in group:
            yield Found(outcome)
        if error:
            raise error


def caption_many(
    photos: Sequence[Photo], options: Options, timeout_s: float, retries: int, on_progress: Report
) -> Steps[None]:
    """Finds an Outcome for each photograph, in the order given, when it has ended. Of what was
    handed in before the service refused the rest, too: only then is the refusal raised."""
    sent = finished = 0
    error: CaptioningError | None = None
    groups: deque[list[Outcome]] = deque()

    def finish(group: list[Outcome]) -> Steps[None]:
        nonlocal finished
        for outcome in group:
            if outcome.job and not outcome.error:
                job = yield from wait(outcome.job.id, timeout_s, retries)
                outcome = Outcome(outcome.photo, job, error_of(job))
            finished += 1
            on_progress(Progress(len(photos), sent, finished))
            yield Found(outcome)

    while sent < len(photos) and not error:
        group, error = yield from _send_group(photos[sent : sent + GROUP_PHOTOS], options, retries)
        sent += len(group)
        on_progress(Progress(len(photos), sent, finished))
        groups.append(group)
        if len(groups) > GROUPS_AHEAD:
            yield from finish(groups.popleft())
    for group in groups:
        yield from finish(group)
    if error:
        raise error


def _send_group(
    photos: Sequence[Photo], options: Options, retries: int
) -> Steps[tuple[list[Outcome], CaptioningError | None]]:
    """Send as many of the photographs as one request should hold. Where the service refuses to
    take them, its error comes after the outcomes of those before."""
    outcomes: list[Outcome] = []
    uploads: list[Upload] = []
    places: list[int] = []
    for photo in photos:
        try:
            upload = yield from read(photo)
        except (NoImage, ImageRejected) as error:
            outcomes.append(Outcome(photo, None, error))
            continue
        places.append(len(outcomes))
        outcomes.append(Outcome(photo, None, None))
        uploads.append(upload)
        if sum(len(upload.data) for upload in uploads) > GROUP_BYTES:
            break
    found: list[Sent] = []
    refusal: CaptioningError | None = None
    try:
        if uploads:
            yield from _send(uploads, options, retries, found)
    except CaptioningError as error:
        refusal = error
        del outcomes[places[len(found)] :]
    for place, (job, reason) in zip(places, found, strict=False):
        outcomes[place] = Outcome(outcomes[place].photo, job, reason)
    return outcomes, refusal


def _send(
    uploads: Sequence[Upload], options: Options, retries: int, found: list[Sent]
) -> Steps[None]:
    """In one upload, or in halves where the service takes fewer at a time. What has become of
    them is in `found`, also when a later half is refused."""
    try:
        found += yield from _send_batch(uploads, options, retries)
        return
    except (TooManyImages, errors.RequestRefused) as error:
        if isinstance(error, errors.RequestRefused) and error.status != 413:
            raise
        if len(uploads) == 1:
            found.append((None, error))
            return
    middle = len(uploads) // 2
    yield from _send(uploads[:middle], options, retries, found)
    yield from _send(uploads[middle:], options, retries, found)


def _send_batch(uploads: Sequence[Upload], options: Options, retries: int) -> Steps[list[Sent]]:
    files = [("images", (upload.filename, upload.data)) for upload in uploads]
    try:
        response = yield from exchange(post(f"{API}/batches", files, options), retries)
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
