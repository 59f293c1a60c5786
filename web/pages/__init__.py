"""The pages for people. Each works without JavaScript; htmx makes captions appear as they
land."""

from __future__ import annotations

from apiflask import APIFlask

from web.pages import api_docs, batches, deleting, gallery, jobs, looks, sign_in, upload
from web.pages.blueprint import bp

__all__ = ["api_docs", "batches", "deleting", "gallery", "init_app", "jobs", "sign_in", "upload"]


def init_app(app: APIFlask) -> None:
    looks.init_app(app)
    app.register_blueprint(bp)
