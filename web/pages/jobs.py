"""The job page: one photograph, its candidates, and what can still be done."""

from __future__ import annotations

from http import HTTPStatus

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug import Response

from captioning import editing, forecast, jobs, queries
from captioning.forecast import Forecast
from captioning.models import Job
from web.current import queue, whole_queue
from web.pages.blueprint import bp
from web.pages.looks import mark


@bp.get("/jobs/<job_id>")
def job(job_id: str) -> ResponseReturnValue:
    return _render("job.html", *_look(job_id))


@bp.get("/jobs/<job_id>/outcome")
def job_outcome(job_id: str) -> ResponseReturnValue:
    """The fragment that an unfinished job's page asks for every second. While nothing else
    has changed it is the place in the queue alone, or 204, which leaves the page alone."""
    job, served = _look(job_id)
    if request.args.get("shown") != _marks(job, served):
        return _render("fragments/job_outcome.html", job, served)
    expected = _forecast(job, served)
    if expected is None:
        return "", HTTPStatus.NO_CONTENT
    place = render_template("fragments/place.html", forecast=expected, out_of_band=True)
    return place, HTTPStatus.OK, {"HX-Reswap": "none"}


@bp.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> ResponseReturnValue:
    with queue().database.write() as session:
        jobs.cancel(session, job_id)
    return _back(job_id)


@bp.post("/jobs/<job_id>/retry")
def retry(job_id: str) -> ResponseReturnValue:
    with queue().database.write() as session:
        jobs.retry(session, job_id)
    job, _ = _look(job_id)
    queue().doorbell.ring(job.model)
    return _back(job_id)


@bp.post("/jobs/<job_id>/edit")
def edit(job_id: str) -> ResponseReturnValue:
    """Keep what a form says of a caption. An empty text, and the model's own, is the model's.

    htmx gets the part of the page that the form is on.
    """
    text = request.form.get("caption", "").strip()
    with queue().database.write() as session:
        job = queries.get_job(session, job_id)
        by_model = job.captions[0].text if job.captions else ""
        editing.edit(session, job_id, None if text in ("", by_model) else text)
        editing.mark_decorative(session, job_id, "decorative" in request.form)
    if "HX-Request" not in request.headers:
        return _back(job_id)
    job, served = _look(job_id)
    if request.form.get("from") == "batch":
        return render_template("fragments/edited_card.html", job=job)
    return _render("fragments/job_outcome.html", job, served)


def _look(job_id: str) -> tuple[Job, bool]:
    with queue().database.read() as session:
        job = queries.get_job(session, job_id)
        return job, job.model in queries.served_models(session)


def _render(template: str, job: Job, served: bool) -> str:
    return render_template(
        template,
        job=job,
        served=served,
        forecast=_forecast(job, served),
        shown=_marks(job, served),
    )


def _marks(job: Job, served: bool) -> str:
    """All that the fragment shows, but for the number of jobs before it."""
    return mark(job) + ("" if served else "-")


def _forecast(job: Job, served: bool) -> Forecast | None:
    """Without a worker there is nothing to expect."""
    if not served:
        return None
    with whole_queue().database.read() as session:
        return forecast.of_job(session, job)


def _back(job_id: str) -> Response:
    """To the page that the button was on."""
    job, _ = _look(job_id)
    if request.form.get("from") == "batch" and job.batch_id:
        target = url_for("pages.batch", batch_id=job.batch_id, _anchor=f"job-{job_id}")
    else:
        target = url_for("pages.job", job_id=job_id)
    return redirect(target, HTTPStatus.SEE_OTHER)
