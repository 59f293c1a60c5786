"""What the service answers, as frozen objects. Newer services may say more: it is ignored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from captioning.errors import CaptioningError
from captioning.models import Decoding, JobStatus
from captioning.queue import Photo


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Caption(_Answer):
    """One candidate. The score is in nats per token; nearer to 0 is surer."""

    text: str
    mean_log_probability: float
    model_revision: str


class JobError(_Answer):
    code: str
    message: str


class Standing(_Answer):
    """Where a queued job stands: 1 is next, 1001 is that or any place further back. `expected_s`
    is until its caption is there, None where nothing tells."""

    place: int
    workers_online: bool
    expected_s: int | None


class Image(_Answer):
    """Where the photograph is, as paths at the service, and what it was called."""

    url: str
    thumbnail_url: str
    filename: str
    width: int
    height: int


class Job(_Answer):
    """A photograph and what has become of it, as it was when the service was asked."""

    id: str
    status: JobStatus
    model: str
    decoding: Decoding
    num_captions: int
    max_words: int | None
    caption: str | None
    edited: bool
    decorative: bool
    alt: str | None
    captions: tuple[Caption, ...]
    error: JobError | None
    queue: Standing | None = None
    """Of a queued job that was read by its id."""
    image: Image
    batch_id: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def text(self) -> str:
        """Somebody's edit, or else the best caption; empty until there is one."""
        return self.caption or ""


class Jobs(_Answer):
    """One page of a listing."""

    jobs: tuple[Job, ...]
    next_cursor: str | None


class Rejected(_Answer):
    filename: str
    index: int | None
    code: str
    message: str


class Batch(_Answer):
    """An upload: the jobs of its good files, in order, and the bad files by their places."""

    id: str
    jobs: tuple[Job, ...]
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one photograph of many: a job that succeeded, or else an error."""

    photo: Photo
    job: Job | None
    error: CaptioningError | None

    @property
    def text(self) -> str:
        """The best caption; empty where there is an error."""
        return self.job.text if self.job else ""


@dataclass(frozen=True)
class Progress:
    """How far many photographs have come. `finished` counts errors, too."""

    total: int
    sent: int
    finished: int
