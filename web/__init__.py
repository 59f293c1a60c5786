"""The web side: pages for people, `/api/v1` for programs. It takes photographs in and shows
what became of them; captions are made elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apiflask import APIFlask

from captioning.queue import Queue
from captioning.settings import Settings, load_settings
from web import (
    access,
    api,
    assets,
    document,
    health,
    ibm_max,
    intake,
    media,
    metrics,
    pages,
    problems,
    proxies,
    rates,
    request_ids,
    security,
    waiting,
)
from web.api.schemas import ProblemBody

# In the order in which they look at a request.
PARTS = (
    proxies,
    metrics,
    request_ids,
    problems,
    security,
    rates,
    access,
    assets,
    health,
    media,
    intake,
    api,
    ibm_max,
    pages,
    document,
)


class Site(APIFlask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """No function here is a coroutine: Flask need not look at a dozen for each request."""
        return func


def create_app(settings: Settings | None = None) -> APIFlask:
    """An application around one Queue, which connects on first use.

    Raises: SettingsError, when the settings are read from the environment.
    """
    settings = settings or load_settings()
    app = Site(
        "web",
        title="Captioning",
        version="1",
        spec_path="/api/openapi.json",
        docs_path=None,  # APIFlask's page loads from a CDN
        json_errors=False,  # problems.py answers every error
    )
    app.config.update(_limits(settings))
    app.config.update(
        HTTP_ERROR_SCHEMA=ProblemBody.model_json_schema(),
        VALIDATION_ERROR_SCHEMA=ProblemBody.model_json_schema(),
        AUTO_OPERATION_ID=True,
        AUTO_404_RESPONSE=False,  # it knows <int:id> only
    )
    app.json = intake.Json(app)
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    app.extensions["captioning"] = Queue(settings)
    app.extensions["captioning.waiting"] = waiting.Seats(settings.web_threads // 2)
    for part in PARTS:
        part.init_app(app)
    return app


def _limits(settings: Settings) -> dict[str, Any]:
    return {
        "MAX_CONTENT_LENGTH": min(intake.WITHOUT_FILES_MAX_BYTES, settings.max_upload_bytes),
        "MAX_FORM_MEMORY_SIZE": intake.WITHOUT_FILES_MAX_BYTES,
        # Room for one upload that is too large by its count of files, so that it is told so.
        "MAX_FORM_PARTS": settings.max_images_per_upload * 2 + 50,
    }
