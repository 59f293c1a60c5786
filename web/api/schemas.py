"""The bodies of `/api/v1`, and how they are made of rows."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Literal

from apiflask.fields import UploadFile
from flask import url_for
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from captioning.editing import MAX_CHARACTERS
from captioning.finding import Wanted
from captioning.forecast import MOST_COUNTED, Forecast
from captioning.models import Batch, Decoding, Job, JobStatus
from captioning.queries import Progress
from captioning.queue import MAX_WORDS
from web import cursors
from web.links import link
from web.waiting import MAX_WAIT_S


class _Options(BaseModel):
    """What may be chosen beside the images; a field of another name is refused."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="A name from GET /api/v1/models.")
    decoding: Decoding = Decoding.BEAM
    num_captions: int = Field(1, ge=1, description="Candidates, best first (beam search only).")
    max_words: int | None = Field(
        None, ge=1, le=MAX_WORDS, description="Most words of a caption; it ends as a sentence."
    )
    priority: Literal["interactive", "bulk"] = Field(
        "interactive", description="Bulk jobs wait until no interactive one is left."
    )

    webhook_url: str | None = Field(
        None,
        description="Where to send a signed message when the job, or the whole batch, has ended.",
    )


class JobByAddress(_Options):
    image_url: str = Field(description="The public address of an image.")


# The files themselves are read by web/intake.py, which limits each: here they are documented.
class JobForm(_Options):
    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["image_url"]}]}
    )

    image: UploadFile | None = Field(None, description="The photograph.")
    image_url: str | None = Field(
        None, description="In place of a file: the public address of an image."
    )


class BatchForm(_Options):
    model_config = ConfigDict(json_schema_extra={"required": ["images"]})

    images: list[UploadFile] | None = Field(
        None, min_length=1, description="The photographs, each as a field of this name."
    )


class EditForm(BaseModel):
    model_config = ConfigDict(extra="forbid")

    caption: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_CHARACTERS,
        pattern=r"\S",
        description="Your text in place of the model's; null takes it back.",
    )
    decorative: bool | None = Field(
        None, description="Whether the photograph wants an empty `alt`. The caption is kept."
    )


class WaitQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wait: float = Field(0, ge=0, le=MAX_WAIT_S, description="Seconds to wait for the outcome.")


def _between(moment: datetime) -> datetime:
    """Of years that every database and every clock can hold, in any time zone."""
    if not 1970 <= moment.year <= 9000:
        raise ValueError("the year must be from 1970 to 9000")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_between)]


class JobsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: JobStatus | None = None
    batch: str | None = None
    model: str | None = None
    text: str | None = Field(
        None,
        max_length=200,
        description="Words that all occur in the captions, an edit or the model's.",
    )
    created_after: Moment | None = Field(None, description="With its time zone, as in RFC 3339.")
    created_before: Moment | None = None
    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = None

    def wanted(self) -> Wanted:
        return Wanted(
            (self.status,) if self.status else (),
            self.batch,
            self.model,
            self.text or "",
            self.created_after,
            self.created_before,
        )


class CaptionBody(BaseModel):
    text: str
    mean_log_probability: float = Field(description="Nats per token; nearer to 0 is surer.")
    model_revision: str


class ErrorBody(BaseModel):
    code: str
    message: str


class ImageBody(BaseModel):
    url: str
    thumbnail_url: str
    filename: str
    width: int
    height: int


class QueueBody(BaseModel):
    place: int = Field(
        ge=1,
        le=MOST_COUNTED + 1,
        description=f"1 is next. {MOST_COUNTED + 1} stands for every place further back, too.",
    )
    workers_online: bool = Field(description="Whether a worker serves the model just now.")
    expected_s: int | None = Field(
        description="Seconds until the caption is there, as far as anybody can tell."
    )


class JobBody(BaseModel):
    id: str
    status: JobStatus
    model: str
    decoding: Decoding
    num_captions: int
    max_words: int | None
    caption: str | None = Field(description="Your edit, or else the best candidate's text.")
    captions: list[CaptionBody] = Field(description="What the model said, best first.")
    edited: bool = Field(description="Whether `caption` is an edit.")
    decorative: bool
    alt: str | None = Field(description="`caption`, or empty where the photograph is decorative.")
    error: ErrorBody | None
    queue: QueueBody | None = Field(
        None,
        description="Where a queued job stands: told by GET /api/v1/jobs/{job_id} only, and no "
        "part of what its `ETag` is of.",
    )
    image: ImageBody
    batch_id: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]


class JobsBody(BaseModel):
    jobs: list[JobBody]
    next_cursor: str | None
    next: str | None = Field(description="Where the next page is.")


class ProgressBody(BaseModel):
    total: int
    finished: int
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class RejectionBody(BaseModel):
    filename: str
    code: str
    message: str
    index: int | None = Field(None, description="The file's place in the upload, from 0.")


class BatchBody(BaseModel):
    id: str
    progress: ProgressBody
    jobs: list[JobBody]
    rejected: list[RejectionBody]
    created_at: datetime
    links: dict[str, str]


class ModelBody(BaseModel):
    name: str
    default: bool
    available: bool = Field(description="Whether a worker serves it just now.")


class ModelsBody(BaseModel):
    models: list[ModelBody]


class ProblemBody(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str


def job_body(job: Job) -> JobBody:
    captions = [
        CaptionBody(
            text=caption.text,
            mean_log_probability=caption.mean_log_probability,
            model_revision=caption.model_revision,
        )
        for caption in job.captions
    ]
    error = (
        ErrorBody(code=job.error_code, message=job.error_message or "") if job.error_code else None
    )
    return JobBody(
        id=job.id,
        status=JobStatus(job.status),
        model=job.model,
        decoding=Decoding(job.decoding),
        num_captions=job.num_captions,
        max_words=job.max_words,
        caption=job.text,
        edited=job.edited_text is not None,
        decorative=job.decorative,
        alt=job.alt,
        captions=captions,
        error=error,
        image=_image_body(job),
        batch_id=job.batch_id,
        attempts=job.attempts,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        links=_job_links(job),
    )


def queue_body(forecast: Forecast, workers_online: bool) -> QueueBody:
    known = workers_online and forecast.seconds is not None
    return QueueBody(
        place=forecast.ahead + 1,
        workers_online=workers_online,
        expected_s=math.ceil(forecast.seconds or 0) if known else None,
    )


def jobs_body(jobs: list[Job], query: JobsQuery) -> JobsBody:
    """A page of at most `limit` of the jobs; one more than that says that there is another."""
    shown = jobs[: query.limit]
    cursor = cursors.encode(shown[-1].id) if len(jobs) > len(shown) else None
    parameters = {**query.model_dump(mode="json", exclude_none=True), "cursor": cursor}
    return JobsBody(
        jobs=[job_body(job) for job in shown],
        next_cursor=cursor,
        next=url_for("jobs.index", **parameters) if cursor else None,
    )


def batch_body(batch: Batch, jobs: list[Job], progress: Progress) -> BatchBody:
    counts = {status.value: count for status, count in progress.by_status.items()}
    return BatchBody(
        id=batch.id,
        progress=ProgressBody(total=progress.total, finished=progress.finished, **counts),
        jobs=[job_body(job) for job in jobs],
        rejected=[RejectionBody(**rejection) for rejection in batch.rejected],
        created_at=batch.created_at,
        links={
            "self": link("batches.show", "batch_id", batch.id),
            "page": link("pages.batch", "batch_id", batch.id),
        },
    )


def _image_body(job: Job) -> ImageBody:
    image = job.image
    return ImageBody(
        url=link("media.image", "image_id", image.id),
        thumbnail_url=link("media.thumbnail", "image_id", image.id),
        filename=image.filename,
        width=image.width,
        height=image.height,
    )


def _job_links(job: Job) -> dict[str, str]:
    links = {
        "self": link("jobs.show", "job_id", job.id),
        "page": link("pages.job", "job_id", job.id),
    }
    if job.batch_id:
        links["batch"] = link("batches.show", "batch_id", job.batch_id)
    return links
