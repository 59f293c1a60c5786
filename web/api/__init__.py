"""`/api/v1`, for programs. web/document.py makes the OpenAPI document of these routes."""

from __future__ import annotations

from apiflask import APIFlask

from web.api import batches, exports, jobs, models, webhooks


def init_app(app: APIFlask) -> None:
    for part in (jobs, batches, exports, models, webhooks):
        app.register_blueprint(part.bp, url_prefix="/api/v1")
