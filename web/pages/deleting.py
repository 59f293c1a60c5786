"""Deletion, which asks first: a page that says what would go, and a form on it. So it works
without JavaScript, and no link deletes anything."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlencode

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug import Response

from captioning import finding, queries
from captioning.errors import JobNotFound, NotFound
from captioning.finding import Wanted
from web.current import queue
from web.pages import filters
from web.pages.blueprint import bp

SHOWN = 12
COUNTED = 100_000
AT_ONCE = 1000
"""What one request deletes. The rest of more is asked for again, with what is left."""


@bp.get("/jobs/<job_id>/delete")
def confirm_job(job_id: str) -> ResponseReturnValue:
    with queue().database.read() as session:
        job = queries.get_job(session, job_id)
    back = url_for("pages.job", job_id=job_id)
    return render_template("delete.html", jobs=[job], count=1, back=back, fields=[])


@bp.post("/jobs/<job_id>/delete")
def delete_job(job_id: str) -> ResponseReturnValue:
    with queue().database.read() as session:
        batch_id = queries.get_job(session, job_id).batch_id
    if not queue().delete([job_id]):
        raise JobNotFound(f"There is no job {job_id}.")
    return _to_what_is_left(batch_id)


@bp.get("/batches/<batch_id>/delete")
def confirm_batch(batch_id: str) -> ResponseReturnValue:
    with queue().database.read() as session:
        queries.get_batch(session, batch_id)
        jobs = queries.iterate_batch(session, batch_id, limit=SHOWN)
        count = queries.batch_progress(session, batch_id).total
    back = url_for("pages.batch", batch_id=batch_id)
    return render_template("delete.html", jobs=jobs, count=count, back=back, fields=[])


@bp.post("/batches/<batch_id>/delete")
def delete_batch(batch_id: str) -> ResponseReturnValue:
    queue().delete_batch(batch_id)
    return redirect(url_for("pages.gallery"), HTTPStatus.SEE_OTHER)


@bp.get("/gallery/delete")
def confirm_many() -> ResponseReturnValue:
    """Of the jobs that were ticked, or of all that match what the gallery was asked for."""
    wanted, fields = _meant()
    with queue().database.read() as session:
        jobs = finding.list_jobs(session, wanted, limit=SHOWN)
        count = finding.count_jobs(session, wanted, at_most=COUNTED)
    back = _address("pages.gallery", filters.asked(request.args).items())
    if not jobs:
        return redirect(back, HTTPStatus.SEE_OTHER)
    if "all" in request.args and "upto" not in request.args:  # what arrives now is not meant
        fields.append(("upto", jobs[0].id))
    return render_template(
        "delete.html", jobs=jobs, count=count, counted=COUNTED, back=back, fields=fields
    )


@bp.post("/gallery/delete")
def delete_many() -> ResponseReturnValue:
    wanted, fields = _meant()
    with queue().database.read() as session:
        job_ids = finding.list_job_ids(session, wanted, limit=AT_ONCE)
    queue().delete(job_ids)
    if len(job_ids) < AT_ONCE:
        where = _address("pages.gallery", filters.asked(request.values).items())
    else:
        where = _address("pages.confirm_many", fields)
    return redirect(where, HTTPStatus.SEE_OTHER)


def _address(endpoint: str, query: Iterable[tuple[str, str]]) -> str:
    encoded = urlencode(list(query))
    return url_for(endpoint) + (f"?{encoded}" if encoded else "")


def _meant() -> tuple[Wanted, list[tuple[str, str]]]:
    """Which jobs, and the fields that say so again."""
    sent = request.values
    asked = filters.asked(sent)
    fields = list(asked.items())
    if "all" in sent:
        upto = sent.get("upto")
        if upto is not None:
            fields.append(("upto", upto))
        return filters.wanted(asked, upto=upto), [*fields, ("all", "yes")]
    job_ids = sent.getlist("job")[:AT_ONCE]
    return Wanted(job_ids=job_ids), [*fields, *(("job", job_id) for job_id in job_ids)]


def _to_what_is_left(batch_id: str | None) -> Response:
    """To the other photographs of the batch, if any."""
    target = url_for("pages.gallery")
    if batch_id:
        try:
            with queue().database.read() as session:
                queries.get_batch(session, batch_id)
            target = url_for("pages.batch", batch_id=batch_id)
        except NotFound:
            pass
    return redirect(target, HTTPStatus.SEE_OTHER)
