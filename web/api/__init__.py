"""`/api/v1`, for programs. OpenAPI 3.1 of it is made from these routes."""

from __future__ import annotations

from apiflask import APIFlask

from web.api import batches, jobs, models


def init_app(app: APIFlask) -> None:
    for part in (jobs, batches, models):
        app.register_blueprint(part.bp, url_prefix="/api/v1")
