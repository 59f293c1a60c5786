"""The reference of the API for people, made of the OpenAPI document that programs get. It loads
nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import current_app, render_template
from flask.typing import ResponseReturnValue

from web.pages.blueprint import bp

Schema = dict[str, Any]
SCHEMAS = "#/components/schemas/"


@dataclass(frozen=True)
class Field:
    """A parameter, or a member of a body."""

    name: str
    kind: str
    required: bool
    text: str
    place: str = ""
    schema: str | None = None
    """The schema that it is made of, if that has a name."""


@dataclass(frozen=True)
class Answer:
    status: str
    text: str
    schema: str | None


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    summary: str
    text: str
    parameters: list[Field]
    bodies: dict[str, list[Field]]
    answers: list[Answer]

    @property
    def anchor(self) -> str:
        return f"{self.method}-{self.path.strip('/').replace('/', '-')}".lower()


@bp.get("/api/docs")
def api_docs() -> ResponseReturnValue:
    known = current_app.extensions
    if "captioning.reference" not in known:  # the routes stay as they are
        spec: Schema = current_app.spec  # type: ignore[attr-defined]  # APIFlask's
        known["captioning.reference"] = _reference(spec)
    return render_template("api_docs.html", **known["captioning.reference"])


def _reference(spec: Schema) -> dict[str, Any]:
    """What the page is made of."""
    schemas = spec["components"]["schemas"]
    groups: dict[str, list[Operation]] = {tag["name"]: [] for tag in spec["tags"]}
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append(_operation(method, path, operation, schemas))
    return {
        "summary": spec["info"]["description"],
        "groups": groups,
        "webhooks": spec["webhooks"],
        "schemas": {name: list(_fields(schema)) for name, schema in sorted(schemas.items())},
        "examples": {
            name: json.dumps(schema["examples"][0], indent=2, ensure_ascii=False)
            for name, schema in schemas.items()
            if "examples" in schema
        },
    }


def _operation(method: str, path: str, operation: Schema, schemas: Schema) -> Operation:
    parameters = [
        Field(
            parameter["name"],
            _kind(parameter["schema"]),
            parameter["required"],
            parameter.get("description", ""),
            parameter["in"],
            _named(parameter["schema"]),
        )
        for parameter in operation.get("parameters", ())
    ]
    content = operation.get("requestBody", {}).get("content", {})
    return Operation(
        method.upper(),
        path,
        operation["summary"],
        operation.get("description", ""),
        parameters,
        {kind: list(_fields(_resolved(body["schema"], schemas))) for kind, body in content.items()},
        [
            Answer(status, answer["description"], _answered(answer))
            for status, answer in operation["responses"].items()
        ],
    )


def _fields(schema: Schema) -> Iterator[Field]:
    for name, member in schema.get("properties", {}).items():
        yield Field(
            name,
            _kind(member),
            name in schema.get("required", ()),
            member.get("description", ""),
            schema=_named(member),
        )
    if "enum" in schema:
        yield Field("", _kind(schema), False, schema.get("description", ""))


def _answered(answer: Schema) -> str | None:
    bodies = answer.get("content", {}).values()
    return next((name for body in bodies if (name := _named(body.get("schema", {})))), None)


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    found: Schema = schemas[schema["$ref"].removeprefix(SCHEMAS)] if "$ref" in schema else schema
    return found


def _named(schema: Schema) -> str | None:
    """The named schema that a value, or each of a list's, is of."""
    for part in (schema, schema.get("items", {}), *schema.get("anyOf", ())):
        if "$ref" in part:
            name: str = part["$ref"].removeprefix(SCHEMAS)
            return name
    return None


def _kind(schema: Schema) -> str:
    """A schema in words: `integer, 1 to 100, default 20`."""
    if "$ref" in schema:
        said = schema["$ref"].removeprefix(SCHEMAS)
    elif "anyOf" in schema:
        said = " or ".join(_kind(part) for part in schema["anyOf"])
    elif "enum" in schema:
        said = " or ".join(f"“{value}”" for value in schema["enum"])
    elif schema.get("type") == "array":
        said = f"list of {_kind(schema['items'])}"
    elif schema.get("format") == "binary":
        said = "file"
    else:
        said = schema.get("format") or schema.get("type", "anything")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        said += f", {low} to {high}"
    elif low is not None:
        said += f", at least {low}"
    if schema.get("default") is not None:
        said += f", default {schema['default']}"
    return str(said)
