"""The batch page: captions appear on it as they land."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from captioning import batches, forecast, queries
from captioning.forecast import Forecast
from captioning.models import Batch, Job, JobStatus
from captioning.queries import Progress
from web.current import queue, whole_queue
from web.pages.blueprint import bp
from web.pages.looks import mark


@dataclass(frozen=True)
class BatchView:
    """One consistent look at a batch."""

    batch: Batch
    jobs: tuple[Job, ...]
    progress: Progress
    served: bool  # does a live worker have the model?
    forecast: Forecast | None  # of its last waiting job

    @property
    def marks(self) -> str:
        return "".join(mark(job) for job in self.jobs)


@bp.get("/batches/<batch_id>")
def batch(batch_id: str) -> ResponseReturnValue:
    return render_template("batch.html", view=_look(batch_id))


@bp.post("/batches/<batch_id>/progress")
def batch_progress(batch_id: str) -> ResponseReturnValue:
    """The fragment that a batch page asks for every second, until nothing is left to come.

    `shown` holds the marks of the cards as they are on the page; the cards that differ come
    along out of band, and the rest of the page is left alone. There may be thousands, for which
    an address has no room: so it is a POST, though it changes nothing.
    """
    view = _look(batch_id)
    shown = request.form.get("shown", "")
    if len(shown) != len(view.jobs):  # some have been deleted: marks are told apart by place
        return "", HTTPStatus.OK, {"HX-Refresh": "true"}
    changed = [job for job, before in zip(view.jobs, shown, strict=True) if mark(job) != before]
    return render_template("fragments/batch_progress.html", view=view, changed=changed)


@bp.post("/batches/<batch_id>/cancel")
def cancel_batch(batch_id: str) -> ResponseReturnValue:
    batches.cancel(queue(), batch_id)
    return _back(batch_id)


@bp.post("/batches/<batch_id>/retry")
def retry_batch(batch_id: str) -> ResponseReturnValue:
    batches.retry(queue(), batch_id)
    return _back(batch_id)


def _back(batch_id: str) -> ResponseReturnValue:
    return redirect(url_for("pages.batch", batch_id=batch_id), HTTPStatus.SEE_OTHER)


def _look(batch_id: str) -> BatchView:
    with queue().database.read() as session:
        batch = queries.get_batch(session, batch_id)
        found = tuple(queries.batch_jobs(session, batch_id))
        progress = queries.batch_progress(session, batch_id)
        served = queries.served_models(session)
    last = next((job for job in reversed(found) if job.status == JobStatus.QUEUED), None)
    with whole_queue().database.read() as session:
        expected = forecast.of_job(session, last) if last else None
    return BatchView(batch, found, progress, {job.model for job in found} <= served, expected)
