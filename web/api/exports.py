"""A batch as a file to take home, sent as it is read: no more than a few jobs are in memory, and
no session is open while the receiver takes its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from apiflask import APIBlueprint
from flask import Response, stream_with_context

from captioning import exports, queries
from captioning.models import Batch, Job
from captioning.queue import Queue
from web.api.schemas import job_body
from web.current import queue

JOBS_AT_ONCE = 100

bp = APIBlueprint("exports", __name__, tag="Batches")


def file_of(kind: str) -> dict[int | str, Any]:
    """How the document describes an answer that is a file."""
    return {200: {"content": {kind: {"schema": {"type": "string"}}}}, 404: {}, 503: {}}


@bp.get("/batches/<batch_id>/export.csv")
@bp.doc(responses=file_of("text/csv"))
def as_csv(batch_id: str) -> Response:
    """Download a batch as a table, one line a job, UTF-8 with a byte order mark.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    return _sent(batch_id, "csv", "text/csv", exports.as_csv)


@bp.get("/batches/<batch_id>/export.jsonl")
@bp.doc(responses=file_of("application/jsonl"))
def as_jsonl(batch_id: str) -> Response:
    """Download a batch as JSON lines, each a job as `GET /api/v1/jobs/{id}` answers it."""
    return _sent(batch_id, "jsonl", "application/jsonl", _as_jsonl)


@bp.get("/batches/<batch_id>/export.zip")
@bp.doc(responses=file_of("application/zip"))
def as_zip(batch_id: str) -> Response:
    """Download the texts of a batch, `photo.txt` for `photo.jpg`, as a ZIP.

    Only what has a caption is in it; a decorative photograph's text is empty.
    """
    return _sent(batch_id, "zip", "application/zip", exports.as_zip)


def _as_jsonl(jobs: Iterable[Job]) -> Iterator[str]:
    for job in jobs:
        yield job_body(job).model_dump_json() + "\n"


def _sent(batch_id: str, ending: str, mimetype: str, write: Any) -> Response:
    """Raises: BatchNotFound."""
    with queue().database.read() as session:
        batch = queries.get_batch(session, batch_id)
    pieces = stream_with_context(write(_jobs_of(queue(), batch)))
    response = Response(pieces, mimetype=mimetype)
    # A name of ours: what photographs are called has no place in a header.
    name = f"captions-{batch.created_at:%Y-%m-%d-%H%M}.{ending}"
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response


def _jobs_of(queue: Queue, batch: Batch) -> Iterator[Job]:
    last = ""
    while True:
        with queue.database.read() as session:
            found = queries.iterate_batch(session, batch.id, after=last, limit=JOBS_AT_ONCE)
        yield from found
        if len(found) < JOBS_AT_ONCE:
            return
        last = found[-1].id
