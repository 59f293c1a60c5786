"""How things are put into words for people: times, sizes, scores, states."""

from __future__ import annotations

import html
import math
from datetime import datetime

from apiflask import APIFlask

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
    app.add_template_filter(as_alt)
    app.add_template_filter(as_img)


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
    if job.started_at is None or job.finished_at is None:
        return "unknown"
    return f"{(job.finished_at - job.started_at).total_seconds():.1f} s"
