"""What was captioned, newest first, a page at a time."""

from __future__ import annotations

from flask import render_template, request
from flask.typing import ResponseReturnValue

from captioning import finding
from captioning.errors import InvalidOption
from captioning.finding import Wanted
from captioning.models import JobStatus
from web import cursors
from web.current import queue
from web.pages.blueprint import bp

PAGE = 24

SHELVES = {
    "captioned": ("Captioned", {JobStatus.SUCCEEDED}),
    "failed": ("Failed", {JobStatus.FAILED}),
    "all": ("All", set(JobStatus)),
}


@bp.get("/gallery")
def gallery() -> ResponseReturnValue:
    shelf = request.args.get("show", "captioned")
    if shelf not in SHELVES:
        raise InvalidOption(f"show must be one of {', '.join(SHELVES)}.")
    cursor = request.args.get("cursor")
    with queue().database.read() as session:
        jobs = finding.list_jobs(
            session,
            Wanted(SHELVES[shelf][1]),
            limit=PAGE + 1,
            before=cursors.decode(cursor) if cursor else None,
        )
    return render_template(
        "gallery.html",
        jobs=jobs[:PAGE],
        shelf=shelf,
        shelves=SHELVES,
        first=cursor is None,
        next_cursor=cursors.encode(jobs[PAGE - 1].id) if len(jobs) > PAGE else None,
    )
