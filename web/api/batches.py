"""Many photographs in one request. A bad one spoils no other."""

from __future__ import annotations

from apiflask import APIBlueprint, EmptySchema

from captioning import batches, queries
from web.api.schemas import BatchBody, BatchForm, batch_body
from web.current import queue
from web.etags import conditional
from web.idempotency import IdempotencyHeader, asked_once
from web.intake import sent_files, uploads

bp = APIBlueprint("batches", __name__, tag="Batches")


@bp.post("/batches")
@bp.input(IdempotencyHeader, location="headers", arg_name="header")
@bp.input(BatchForm, location="form_and_files", arg_name="form")
@bp.output(BatchBody, status_code=202)
@bp.doc(responses=[400, 413, 503])
def create(header: IdempotencyHeader, form: BatchForm) -> tuple[BatchBody, int, dict[str, str]]:
    """Queue several photographs.

    Each that cannot be captioned is named in `rejected` with its reason; if that is every
    one of them, nothing is kept and the answer is 422.
    """
    options = queue().options(
        form.model,
        form.decoding,
        form.num_captions,
        form.max_words,
        priority=form.priority,
        webhook_url=form.webhook_url,
    )
    once = asked_once(header)
    submission = queue().submit_many(uploads(sent_files("images")), options, once=once)
    return _accepted(_read(submission.batch_id))


@bp.get("/batches/<batch_id>")
@bp.output(BatchBody)
@bp.doc(responses=[304, 404, 503])
@conditional
def show(batch_id: str) -> BatchBody:
    """Read a batch and its jobs."""
    return _read(batch_id)


@bp.delete("/batches/<batch_id>")
@bp.output(EmptySchema, status_code=204)
@bp.doc(responses=[404, 503])
def delete(batch_id: str) -> tuple[str, int]:
    """Delete a batch and all its jobs, with their images and captions, for good."""
    queue().delete_batch(batch_id)
    return "", 204


@bp.post("/batches/<batch_id>/cancel")
@bp.output(BatchBody)
@bp.doc(responses=[404, 503])
def cancel(batch_id: str) -> BatchBody:
    """Cancel the jobs of a batch that have not ended. The others stay as they are."""
    batches.cancel(queue(), batch_id)
    return _read(batch_id)


@bp.post("/batches/<batch_id>/retry")
@bp.output(BatchBody, status_code=202)
@bp.doc(responses=[404, 503])
def retry(batch_id: str) -> tuple[BatchBody, int, dict[str, str]]:
    """Queue the jobs of a batch again that have failed. Those that were cancelled stay so."""
    batches.retry(queue(), batch_id)
    return _accepted(_read(batch_id))


def _accepted(body: BatchBody) -> tuple[BatchBody, int, dict[str, str]]:
    return body, 202, {"Location": body.links["self"], "Retry-After": "1"}


def _read(batch_id: str) -> BatchBody:
    with queue().database.read() as session:
        batch = queries.get_batch(session, batch_id)
        jobs = queries.batch_jobs(session, batch_id)
        progress = queries.batch_progress(session, batch_id)
    return batch_body(batch, list(jobs), progress)
