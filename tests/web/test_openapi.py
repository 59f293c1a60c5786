"""The OpenAPI document says what the routes do: what it allows is asked, in sequences, too, and
every answer is one that it describes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import schemathesis
from apiflask import APIFlask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi import checks
from schemathesis.specs.openapi.schemas import OpenApiSchema

from captioning import fetching
from captioning.models import JobStatus
from captioning.queue import JobHandle, Queue, Upload
from tests import servers
from tests.factories import photo
from tests.web.outcomes import caption
from tests.web.sending import BAD_FILES, bad_file

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
UNTIL_DELETED = [checks.ensure_resource_availability]
"""A batch goes with its last job, which a document cannot say: after a deletion what was made
need not be there."""
SURELY_SEEN = {
    ("POST", "/api/v1/jobs", 202),
    ("GET", "/api/v1/jobs/{job_id}", 200),
}
DELETIONS = {("DELETE", f"/api/v1/{path}", 204) for path in ("jobs/{job_id}", "batches/{batch_id}")}
OF_BATCHES = {
    ("GET", f"/api/v1/batches/{{batch_id}}{kind}", 200)
    for kind in ("", "/export.csv", "/export.jsonl", "/export.zip")
}
FILES = [photo()] * 4 + [bad_file(kind) for kind in BAD_FILES if kind != "40 MB"]
EXAMPLES = 15
SEQUENCES = 60


@pytest.fixture
def schema(app: APIFlask, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> OpenApiSchema:
    """The document as it is served. Uploads are often photographs, addresses lead to one, and
    who waits for a caption gets one."""

    def caption_it(handle: JobHandle, timeout_s: float = 0) -> JobStatus:
        if handle.status == JobStatus.QUEUED:
            caption(queue, "A wall.", limit=1000)
        return handle.status

    schemathesis.openapi.format("binary", st.sampled_from(FILES))
    monkeypatch.setattr(fetching, "fetch", lambda url, max_bytes: Upload("cat.jpg", photo()))
    monkeypatch.setattr(JobHandle, "wait", caption_it)
    return schemathesis.openapi.from_wsgi("/api/openapi.json", app)


def quick(examples: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        **more,
    )


@pytest.mark.slow
def test_every_operation_answers_as_described(schema: OpenApiSchema) -> None:
    for found in schema.get_all_operations():
        operation = found.ok()

        @quick(EXAMPLES)
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        ask()


@pytest.mark.slow
def test_sequences_of_operations_answer_as_described(schema: OpenApiSchema, queue: Queue) -> None:
    """Each goes on with the ids that the ones before were given."""
    seen: set[tuple[str, str, int]] = set()

    class Sequence(schema.as_state_machine()):  # type: ignore[misc]  # made for this document
        def setup(self) -> None:
            """One that is run again must find what it found before: keys that are kept would
            answer it with jobs that have been cancelled or deleted since."""
            super().setup()
            servers.empty(queue.database)
            self.deleted = False

        def validate_response(
            self, response: schemathesis.Response, case: schemathesis.Case, **more: Any
        ) -> None:
            seen.add((case.method, case.operation.path, response.status_code))
            self.deleted = self.deleted or case.method == "DELETE"
            asked = [*CHECKS, checks.use_after_free, *([] if self.deleted else UNTIL_DELETED)]
            case.validate_response(response, checks=asked, recorder=self.recorder)

    Sequence.run(settings=quick(SEQUENCES, stateful_step_count=40))
    assert seen >= SURELY_SEEN
    assert seen & OF_BATCHES
    assert seen & DELETIONS


def document(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/openapi.json").json
    return found


def test_every_route_for_programs_is_described(client: FlaskClient) -> None:
    spec = document(client)
    assert spec["openapi"].startswith("3.1")
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in client.application.url_map.iter_rules()
        if rule.rule.startswith(("/api/v1/", "/model/"))
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, methods in spec["paths"].items() for method in methods}
    assert described == routes


def test_every_error_is_a_problem_and_every_answer_has_words(client: FlaskClient) -> None:
    for path, methods in document(client)["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            for status, answer in operation["responses"].items():
                assert answer["description"], where
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], where


def test_every_json_answer_has_an_example_of_its_schema(client: FlaskClient) -> None:
    spec = document(client)
    for path, methods in spec["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                for content in answer.get("content", {}).values():
                    name = content["schema"].get("$ref", "").rpartition("/")[2]
                    if name:
                        assert spec["components"]["schemas"][name]["examples"], (path, status)
    for name, schema in spec["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            whole = {"$ref": f"#/components/schemas/{name}", "components": spec["components"]}
            Draft202012Validator(whole).validate(example)


def test_names_of_schemas_are_short_and_none_is_missing(client: FlaskClient) -> None:
    spec = document(client)
    text = json.dumps(spec)
    names = set(spec["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= names
    assert {"Job", "Batch", "Caption", "Problem"} <= names
    assert not [name for name in names if "." in name or name.endswith("Body")]
    assert "#/$defs/" not in text


def test_the_messages_of_webhooks_look_as_described(client: FlaskClient, queue: Queue) -> None:
    from captioning import webhooks

    queue.submit(photo(), webhook_url="https://receiver.example/")
    queue.submit_many(
        [Upload("a.jpg", photo())],
        queue.options(None, "beam", 1, webhook_url="https://receiver.example/"),
    )
    caption(queue, "A wall.")
    examples = {
        example["type"]: example
        for hook in document(client)["webhooks"].values()
        for content in hook["post"]["requestBody"]["content"].values()
        for example in [content["example"]]
    }
    for _ in range(2):
        with queue.database.write() as session:
            message = webhooks.take_due(session)
        assert message is not None
        sent = json.loads(message.body)
        example = examples.pop(sent["type"])
        assert list(sent) == list(example)
        assert list(sent["data"]) == list(example["data"])
    assert examples == {}
