"""The OpenAPI document as it is given out. APIFlask describes each route; this adds what holds
for all of them, gives each schema one name and an example, and describes the webhooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from apiflask import APIFlask

from web.api.examples import BATCH_FINISHED, EXAMPLES, JOB_SUCCEEDED
from web.api.schemas import JobByAddress

Spec = dict[str, Any]

SCHEMAS = "#/components/schemas/"
PROBLEM = {"application/problem+json": {"schema": {"$ref": f"{SCHEMAS}Problem"}}}
RENAMED = {"HTTPError": "Problem", "ValidationError": "Problem"}
SUMMARY = (
    "Photographs in, captions out. Submit one to `/api/v1/jobs`, ask for the job with `?wait=20`, "
    "or be told by a webhook. Where requests are limited, answers say in `RateLimit` how many are "
    "left. Errors are problem details (RFC 9457) with a stable `code`."
)
RETRY_AFTER = ("Retry-After", "Seconds to wait.", {"type": "integer"})
HEADERS = {
    "202": ("Location", "Where it is.", {"type": "string", "format": "uri-reference"}),
    "429": RETRY_AFTER,
    "503": RETRY_AFTER,
}
IF_NONE_MATCH: Spec = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of what you have: where that is still so, the answer is 304.",
    "schema": {"type": "string"},
}
IF_MATCH: Spec = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of what you have: where it is no longer so, nothing is changed and "
    "the answer is 412.",
    "schema": {"type": "string"},
}
KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An access key, where the service asks for one: `Authorization: Bearer KEY`.",
}
SAFE = {"get", "head", "options"}

MEANINGS = {
    304: "As you have it.",
    400: "The request is not understood, or holds no image.",
    401: "An access key is needed.",
    403: "This may not be done with this key, or the request comes from another site.",
    404: "There is no such thing, or it is not yours.",
    409: "It is not in a state that allows this.",
    412: "It is not, or no longer, as `If-Match` says.",
    413: "Too large, or too many.",
    415: "Not an image of a supported type, or not a body that is taken here.",
    422: "A field or an image is wrong; `detail` says which and why.",
    429: "Too many requests, or the images of this day are used up: come back after `Retry-After` "
    "seconds.",
    500: "A fault of the service's own.",
    503: "A part of the service is away or full: come back after `Retry-After` seconds.",
}


def init_app(app: APIFlask) -> None:
    app.spec_processor(_finished)  # type: ignore[arg-type]  # a str is YAML, ours is JSON


def _finished(spec: Spec) -> Spec:
    spec["info"]["description"] = SUMMARY
    spec["servers"] = [{"url": "/"}]
    schemas = spec["components"]["schemas"]
    _take_json(spec["paths"]["/api/v1/jobs"]["post"], schemas)
    spec = _with_short_names(spec)
    schemas = spec["components"]["schemas"]
    for name, example in EXAMPLES.items():
        schemas[_short(name)]["examples"] = [example.model_dump(mode="json")]
    for method, operation in _operations(spec):
        _describe(method, operation, schemas)
    spec["components"]["securitySchemes"] = {"key": KEY}
    spec["security"] = [{"key": []}, {}]  # the latter while access is open
    spec["webhooks"] = {
        "job": _webhook("A job that was submitted by itself has ended.", JOB_SUCCEEDED),
        "batch": _webhook("The last job of a batch has ended.", BATCH_FINISHED),
    }
    return spec


def _take_json(operation: Spec, schemas: Spec) -> None:
    """A job may be asked for as JSON, too: APIFlask describes one body a route."""
    schema = JobByAddress.model_json_schema(ref_template=SCHEMAS + "JobForm.{model}")
    del schema["$defs"]  # JobForm brings the same
    schemas["JobByAddress"] = schema
    content = operation["requestBody"]["content"]
    content["application/json"] = {"schema": {"$ref": f"{SCHEMAS}JobByAddress"}}


def _with_short_names(spec: Spec) -> Spec:
    """`JobsBody.CaptionBody`, `BatchBody.CaptionBody` and `CaptionBody` are one `Caption`."""

    def rename(node: Spec) -> None:
        if "$ref" in node:
            node["$ref"] = SCHEMAS + _short(node["$ref"].removeprefix(SCHEMAS))

    _walk(spec, rename)
    schemas: Spec = {}
    for name, schema in spec["components"]["schemas"].items():
        schema["title"] = _short(name)
        if schemas.setdefault(_short(name), schema) != schema:
            raise AssertionError(f"two schemas are called {_short(name)}")
    spec["components"]["schemas"] = schemas
    return spec


def _short(name: str) -> str:
    return RENAMED.get(name) or name.rpartition(".")[2].removesuffix("Body")


def _describe(method: str, operation: Spec, schemas: Spec) -> None:
    """What holds for every operation, and is said of none."""
    answers = operation["responses"]
    answers.setdefault("401", {})
    answers.setdefault("429", {})
    if method not in SAFE:
        answers.setdefault("403", {})
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
        for status in ("400", "413"):
            answers.setdefault(status, {})
        for kind, body in operation["requestBody"]["content"].items():
            if kind != "application/json":
                form = schemas[body["schema"]["$ref"].removeprefix(SCHEMAS)]
                for field in form["properties"].values():
                    _not_null(field)
    answers.setdefault("503", {})
    for status, answer in answers.items():
        answer["description"] = MEANINGS.get(int(status), HTTPStatus(int(status)).phrase)
        if int(status) >= 400:
            answer["content"] = PROBLEM
        if status in HEADERS:
            _add_header(answer, *HEADERS[status])
    if "304" in answers:
        answers["304"].pop("content", None)
        operation.setdefault("parameters", []).append(IF_NONE_MATCH)
        for status in ("200", "304"):
            _add_header(answers[status], "ETag", "Of this answer.", {"type": "string"})
    if "412" in answers:
        operation.setdefault("parameters", []).append(IF_MATCH)
        _add_header(answers["200"], "ETag", "Of this answer.", {"type": "string"})
    operation["responses"] = dict(sorted(answers.items()))
    for parameter in operation.get("parameters", ()):
        _not_null(parameter["schema"])
        parameter.setdefault("description", parameter["schema"].pop("description", ""))


def _add_header(answer: Spec, name: str, text: str, schema: Spec) -> None:
    header = {"description": text, "required": True, "schema": schema}
    answer.setdefault("headers", {})[name] = header


def _not_null(schema: Spec) -> None:
    """A parameter or a field of a form is left out rather than null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    if len(kinds) == 1:
        del schema["anyOf"]
        if schema.get("default", ...) is None:
            del schema["default"]
        schema.update(kinds[0])


def _webhook(summary: str, example: Spec) -> Spec:
    headers = [
        ("webhook-id", "The same each time that this message is sent."),
        ("webhook-timestamp", "When this attempt began, in seconds since 1970."),
        ("webhook-signature", "`v1,` and a signature by Standard Webhooks; one or two."),
    ]
    return {
        "post": {
            "summary": summary,
            "parameters": [
                {
                    "name": name,
                    "in": "header",
                    "required": True,
                    "description": text,
                    "schema": {"type": "string"},
                }
                for name, text in headers
            ],
            "requestBody": {"content": {"application/json": {"example": example}}},
            "responses": {"2XX": {"description": "Received. Anything else is tried again."}},
        }
    }


def _operations(spec: Spec) -> Iterator[tuple[str, Spec]]:
    for path in spec["paths"].values():
        yield from path.items()


def _walk(node: Any, visit: Callable[[Spec], None]) -> None:
    if isinstance(node, dict):
        visit(node)
        for child in node.values():
            _walk(child, visit)
    elif isinstance(node, list):
        for child in node:
            _walk(child, visit)
