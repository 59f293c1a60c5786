"""What was captioned, newest first, a page at a time, and how to find something in it."""

from __future__ import annotations

from flask import render_template, request
from flask.typing import ResponseReturnValue

from captioning import finding
from web import cursors
from web.current import queue
from web.pages import filters
from web.pages.blueprint import bp

PAGE = 24


@bp.get("/gallery")
def gallery() -> ResponseReturnValue:
    asked = filters.asked(request.args)
    cursor = request.args.get("cursor")
    with queue().database.read() as session:
        jobs = finding.list_jobs(
            session,
            filters.wanted(asked),
            limit=PAGE + 1,
            before=cursors.decode(cursor) if cursor else None,
        )
    models = dict.fromkeys([*queue().settings.models, asked.get("model", "")])
    return render_template(
        "gallery.html",
        jobs=jobs[:PAGE],
        asked=asked,
        shelf=asked.get("show", filters.FIRST_SHELF),
        shelves=filters.SHELVES,
        models=[name for name in models if name],
        narrowed=bool(asked.keys() - {"show"}),
        first=cursor is None,
        next_cursor=cursors.encode(jobs[PAGE - 1].id) if len(jobs) > PAGE else None,
    )
