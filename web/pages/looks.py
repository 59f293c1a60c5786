"""How things are put into words for people: times, sizes, scores, states."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from datetime import datetime

from apiflask import APIFlask

from captioning.forecast import MOST_COUNTED, Forecast
from captioning.models import Job, JobStatus

WORDS = {
    JobStatus.QUEUED: "Waiting",
    JobStatus.RUNNING: "Captioning…",
    JobStatus.SUCCEEDED: "Captioned",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELLED: "Cancelled",
}


def init_app(app: APIFlask) -> None:
    app.add_template_filter(moment)
    app.add_template_filter(megabytes)
    app.add_template_filter(certainty)
    app.add_template_filter(mark)
    app.add_template_filter(in_words)
    app.add_template_filter(seconds_taken)
    for words in (as_alt, as_img, about, place, time_left, how_many_wait, media_types, in_a_row):
        app.add_template_filter(words)


def moment(when: datetime) -> str:
    return f"{when.day} {when:%B %Y, %H:%M} UTC"


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


def certainty(mean_log_probability: float) -> int:
    """Percent: the geometric mean of the probabilities that the model gave its tokens."""
    return round(100 * math.exp(min(mean_log_probability, 0)))


def mark(job: Job) -> str:
    """One letter for all that a card shows of a job's state, so that a browser can say in a
    few bytes which state of a hundred jobs it shows."""
    waits_after_failure = job.status == JobStatus.QUEUED and job.error_code is not None
    return "w" if waits_after_failure else job.status[0]


def in_words(job: Job) -> str:
    return "Trying again shortly" if mark(job) == "w" else WORDS[JobStatus(job.status)]


def as_alt(job: Job) -> str:
    """The attribute, as it is pasted into HTML."""
    return f'alt="{html.escape(job.alt or "")}"'


def as_img(job: Job) -> str:
    return f'<img src="{html.escape(job.image.filename)}" {as_alt(job)}>'


def seconds_taken(job: Job) -> str:
    """From the last claim to the outcome."""
    if job.status == JobStatus.SUCCEEDED and job.started_at is None:
        return "no time: the same was captioned before"
    if job.started_at is None or job.finished_at is None:
        return "unknown"
    return f"{(job.finished_at - job.started_at).total_seconds():.1f} s"


def about(seconds: float) -> str:
    """No nearer than anybody can know."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 90:
        return f"about {math.ceil(seconds / 5) * 5} seconds"
    if seconds < 90 * 60:
        return f"about {math.ceil(seconds / 60)} minutes"
    return f"about {math.ceil(seconds / 3600)} hours"


def place(forecast: Forecast) -> str:
    """Where a job stands in the queue."""
    words = f"{_counted(forecast.ahead)} before it" if forecast.ahead else "Next in the queue"
    return words if forecast.seconds is None else f"{words}, {about(forecast.seconds)} left"


def time_left(forecast: Forecast, own: int) -> str:
    """For an upload of which `own` jobs wait; the last of them has this forecast."""
    count = forecast.ahead - (own - 1)
    shared = f"sharing the queue with {'one other' if count == 1 else f'{count} others'}"
    left = f"{about(forecast.seconds)} to go" if forecast.seconds is not None else ""
    return ", ".join(words for words in (left, shared if count > 0 else "") if words)


def how_many_wait(count: int) -> str:
    return f"{_counted(count)} {'is' if count == 1 else 'are'} waiting"


def media_types(formats: Sequence[str]) -> str:
    """For a browser that lets people choose files."""
    names = {"HEIF": "image/heic,image/heif"}
    return ",".join(names.get(name, f"image/{name.lower()}") for name in formats)


def in_a_row(formats: Sequence[str]) -> str:
    *first, last = [{"WEBP": "WebP", "HEIF": "HEIC"}.get(name, name) for name in formats]
    return f"{', '.join(first)} or {last}"


def _counted(count: int) -> str:
    if count >= MOST_COUNTED:
        return f"more than {MOST_COUNTED} photographs"
    return f"{count} photograph{'' if count == 1 else 's'}"
