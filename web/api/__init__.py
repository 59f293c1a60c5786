"""`/api/v1`, for programs. OpenAPI 3.1 of it is made from these routes."""

from __future__ import annotations

from typing import Any

from apiflask import APIFlask

from web.api import batches, jobs, models, webhooks
from web.api.schemas import JobByAddress


def init_app(app: APIFlask) -> None:
    for part in (jobs, batches, models, webhooks):
        app.register_blueprint(part.bp, url_prefix="/api/v1")
    app.spec_processor(_with_json)  # type: ignore[arg-type]  # a str is YAML, ours is JSON


def _with_json(spec: dict[str, Any]) -> dict[str, Any]:
    """Say that a job may be asked for as JSON, too: APIFlask describes one body a route."""
    schema = JobByAddress.model_json_schema(ref_template="#/components/schemas/JobForm.{model}")
    del schema["$defs"]  # JobForm brings the same
    spec["components"]["schemas"]["JobByAddress"] = schema
    content = spec["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]
    content["application/json"] = {"schema": {"$ref": "#/components/schemas/JobByAddress"}}
    return spec
