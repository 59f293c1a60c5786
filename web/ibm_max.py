"""`/model/predict`, as IBM's MAX-Image-Caption-Generator answers it: programs that were written
for that service need another address and nothing else. It waits, where `/api/v1` would not.

Source: github.com/IBM/MAX-Image-Caption-Generator, its README, api/ and config.py.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus

from apiflask import APIBlueprint, APIFlask, HTTPError
from apiflask.fields import UploadFile
from flask import Response
from pydantic import BaseModel, Field
from werkzeug.exceptions import HTTPException

from captioning import jobs
from captioning.errors import CaptioningError, NoImage, Unavailable, WrongState
from captioning.models import Job, JobStatus
from captioning.queue import Upload
from web import problems
from web.current import queue
from web.intake import sent_files, uploads
from web.problems import Problem
from web.waiting import seats

TIMEOUT_S = 55.0
"""Under the minute after which most proxies give up, so that the sender is told why."""
CANDIDATES = 3

bp = APIBlueprint("max", __name__, url_prefix="/model", tag="IBM MAX")


class PredictForm(BaseModel):
    image: UploadFile = Field(description="A photograph.")


class PredictionBody(BaseModel):
    index: str = Field(description="Its rank: `0` is the best.")
    caption: str
    probability: float = Field(description="Geometric mean of its tokens' probabilities.")


class PredictBody(BaseModel):
    status: str = Field(description="`ok`.")
    predictions: list[PredictionBody]


class MetadataBody(BaseModel):
    id: str
    name: str
    description: str
    type: str
    source: str


class NotCaptioned(CaptioningError):
    """The image could not be captioned."""

    code = "not_captioned"


def init_app(app: APIFlask) -> None:
    app.register_blueprint(bp)


@bp.post("/predict")
@bp.input(PredictForm, location="files", arg_name="form")
@bp.output(PredictBody)
@bp.doc(responses=[400, 413, 500, 503])
def predict(form: PredictForm) -> PredictBody:
    """Caption one photograph, and wait for it.

    For programs written for IBM's MAX-Image-Caption-Generator. What has no caption within 55
    seconds is cancelled and answered with 503.
    """
    parts = sent_files("image")
    if not parts:
        raise NoImage("Send the photograph as a file 'image'.")
    with seats().taken() as seated:
        if not seated:
            raise Unavailable("Too many are waiting for their captions just now.")
        job = _captioned(next(uploads(parts)))
    if job.status != JobStatus.SUCCEEDED:
        raise NotCaptioned(job.error_message)
    predictions = [
        PredictionBody(
            index=str(caption.rank),
            caption=caption.text,
            probability=math.exp(min(caption.mean_log_probability, 0)),
        )
        for caption in job.captions
    ]
    return PredictBody(status="ok", predictions=predictions)


@bp.get("/metadata")
@bp.output(MetadataBody)
def metadata() -> MetadataBody:
    """Describe the model that `/model/predict` uses."""
    return MetadataBody(
        id="captioning",
        name="Captioning",
        description=f"The ClipCap model {queue().settings.default_model!r}.",
        type="Image-to-Text Translation",
        source="https://arxiv.org/abs/2111.09734",
    )


def _captioned(photo: Upload) -> Job:
    """The job once it has ended. Nobody comes back for one that has not: it is cancelled.

    Raises: ImageRejected, Unavailable.
    """
    candidates = min(CANDIDATES, queue().settings.max_captions)
    handle = queue().submit(photo, num_captions=candidates)
    if not handle.wait(TIMEOUT_S).finished:
        with suppress(WrongState), queue().database.write() as session:  # it may end just now
            jobs.cancel(session, handle.id)
    job = handle.read()
    if job.status == JobStatus.CANCELLED:
        raise Unavailable("There was no caption in time.")
    return job


def _answer(problem: Problem) -> Response:
    """As MAX says it: whatever is wrong with an image is 400, and why is the `message`."""
    mistaken = problem.status in (415, 422)
    status = HTTPStatus.BAD_REQUEST if mistaken else problem.status
    return problems.answer(
        replace(problem, status=status, extra={**problem.extra, "message": problem.detail})
    )


bp.register_error_handler(CaptioningError, lambda error: _answer(problems.of_domain(error)))
bp.register_error_handler(HTTPError, lambda error: _answer(problems.of_validation(error)))
bp.register_error_handler(HTTPException, lambda error: _answer(problems.of_werkzeug(error)))
